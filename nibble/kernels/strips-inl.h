// Compiled once per instruction set: the including file defines, inside its region, a struct Simd with
//   kLanes    outputs in a register, 8 or 16
//   kTokens   tokens that fit the registers together
//   Codes     4 * kLanes bytes: load_codes, store_codes, low, high (nibbles), lookup(table, codes)
//   Sum<Form> exact sums of a block: clear(), add(codes, four activations), floats(); no constructor,
//             since implicit functions do not get the region's instruction set
//             centred(codes, j): byte j of each lane, less 128, as floats
//   Floats    zero, broadcast, load(float*), load_half, load_bytes, store, mul, fma, negative_fma
//   prefetch

namespace nibble::kernels {
namespace {

constexpr size_t lines_per_block(Form form) {
  return form == Form::kNibbles || form == Form::kNibbleTable ? kBlockInputs / 8 : kBlockInputs / 4;
}

// Far enough ahead that lines are in the L2 cache when a loop over several tokens gets to them; the
// processor's own prefetcher keeps up with one token. Measured on Zen 4.
constexpr size_t kPrefetchBytes = 8192;

NIBBLE_INLINE Simd::Floats load_scales(const Strips& w, const void* values, size_t i) {
  return w.half_scales ? Simd::load_half(static_cast<const uint16_t*>(values) + i)
                       : Simd::load(static_cast<const float*>(values) + i);
}

// Outputs [lane, lane + kLanes) of one strip for the tokens [token, token + M).
// out: [M][kStripOutputs]
template <Form F, size_t M>
void strip_part(const Strips& w, size_t strip, const uint8_t* codes, size_t lane, const QuantizedInputs& x,
                size_t token, float* out) {
  typename Simd::Codes table = {};
  if constexpr (F == Form::kNibbleTable) table = Simd::load_table(w.table);
  typename Simd::Floats totals[M];
  NIBBLE_UNROLL
  for (size_t m = 0; m < M; ++m) totals[m] = Simd::zero();

  constexpr size_t kLines = lines_per_block(F);
  const uint8_t* line = codes + 4 * lane;
  const int8_t* inputs = x.codes + token * x.stride;
  const float* const scales = x.scales + token * x.scale_stride;
  const size_t num_groups = w.group_ends.size();
  size_t block = 0;
  for (size_t g = 0; g < num_groups; ++g) {
    typename Simd::Floats sums[M];
    NIBBLE_UNROLL
    for (size_t m = 0; m < M; ++m) sums[m] = Simd::zero();

    for (; block < w.group_ends[g]; ++block) {
      typename Simd::template Sum<F> dots[M];
      NIBBLE_UNROLL
      for (size_t m = 0; m < M; ++m) dots[m].clear();
      NIBBLE_UNROLL
      for (size_t l = 0; l < kLines; ++l) {
        if constexpr (M > 1 && F != Form::kSmallBytes) Simd::prefetch(line + l * kLineBytes + kPrefetchBytes);
        const typename Simd::Codes c = Simd::load_codes(line + l * kLineBytes);
        if constexpr (F == Form::kNibbles || F == Form::kNibbleTable) {
          typename Simd::Codes low = Simd::low(c);
          typename Simd::Codes high = Simd::high(c);
          if constexpr (F == Form::kNibbleTable) {
            low = Simd::lookup(table, low);
            high = Simd::lookup(table, high);
          }
          NIBBLE_UNROLL
          for (size_t m = 0; m < M; ++m) {
            dots[m].add(low, inputs + m * x.stride + 8 * l);
            dots[m].add(high, inputs + m * x.stride + 8 * l + 4);
          }
        } else {
          NIBBLE_UNROLL
          for (size_t m = 0; m < M; ++m) dots[m].add(c, inputs + m * x.stride + 4 * l);
        }
      }
      NIBBLE_UNROLL
      for (size_t m = 0; m < M; ++m) {
        sums[m] = Simd::fma(Simd::broadcast(scales[m * x.scale_stride + block]), dots[m].floats(), sums[m]);
      }
      line += kLines * kLineBytes;
      inputs += kBlockInputs;
    }

    const size_t i = (strip * num_groups + g) * kStripOutputs + lane;
    const typename Simd::Floats scale = load_scales(w, w.scales, i);
    const float* const input_sums = x.sums + token * num_groups + g;
    if (w.offsets != nullptr) {
      const typename Simd::Floats offset = load_scales(w, w.offsets, i);
      NIBBLE_UNROLL
      for (size_t m = 0; m < M; ++m) {
        totals[m] = Simd::fma(scale, sums[m], totals[m]);
        totals[m] = Simd::fma(offset, Simd::broadcast(input_sums[m * num_groups]), totals[m]);
      }
    } else {
      const typename Simd::Floats zero =
          w.zeros != nullptr ? Simd::load_bytes(w.zeros + i) : Simd::broadcast(w.zero);
      NIBBLE_UNROLL
      for (size_t m = 0; m < M; ++m) {
        sums[m] = Simd::negative_fma(zero, Simd::broadcast(input_sums[m * num_groups]), sums[m]);
        totals[m] = Simd::fma(scale, sums[m], totals[m]);
      }
    }
  }
  NIBBLE_UNROLL
  for (size_t m = 0; m < M; ++m) Simd::store(out + m * kStripOutputs + lane, totals[m]);
}

// One strip for the tokens from `token` on, M at a time and the rest in one smaller piece.
template <Form F, size_t M>
void strip_tokens(const Strips& w, size_t strip, const uint8_t* codes, const QuantizedInputs& x, size_t token,
                  MatrixView<float> y) {
  const size_t first = strip * kStripOutputs;
  const size_t count = w.out_features - first < kStripOutputs ? w.out_features - first : kStripOutputs;
  for (; token + M <= x.tokens; token += M) {
    alignas(64) float out[M * kStripOutputs];
    for (size_t lane = 0; lane < kStripOutputs; lane += Simd::kLanes) {
      strip_part<F, M>(w, strip, codes, lane, x, token, out);
    }
    for (size_t m = 0; m < M; ++m) {
      std::memcpy(y.row(token + m) + first, out + m * kStripOutputs, count * sizeof(float));
    }
  }
  if constexpr (M > 1) {
    if (token < x.tokens) strip_tokens<F, M - 1>(w, strip, codes, x, token, y);
  }
}

// [num_blocks][4 lines] of nibbles -> [num_blocks][8 lines] of bytes, in the order of the activations.
template <Form F>
void unpack_strip(const Strips& w, const uint8_t* codes, uint8_t* bytes) {
  typename Simd::Codes table = {};
  if constexpr (F == Form::kNibbleTable) table = Simd::load_table(w.table);
  for (size_t offset = 0; offset < w.strip_bytes(); offset += kLineBytes) {
    for (size_t part = 0; part < kLineBytes; part += 4 * Simd::kLanes) {
      Simd::prefetch(codes + offset + part + kPrefetchBytes);
      const typename Simd::Codes c = Simd::load_codes(codes + offset + part);
      typename Simd::Codes low = Simd::low(c);
      typename Simd::Codes high = Simd::high(c);
      if constexpr (F == Form::kNibbleTable) {
        low = Simd::lookup(table, low);
        high = Simd::lookup(table, high);
      }
      Simd::store_codes(bytes + 2 * offset + part, low);
      Simd::store_codes(bytes + 2 * offset + kLineBytes + part, high);
    }
  }
}

void strips(const Strips& w, const QuantizedInputs& x, size_t begin, size_t end, MatrixView<float> y,
            uint8_t* scratch) {
  // Unpacking pays when it saves more than one further pass over the nibbles.
  const bool unpack = x.tokens > Simd::kTokens;
  for (size_t strip = begin; strip < end; ++strip) {
    const uint8_t* const codes = w.codes + strip * w.strip_bytes();
    switch (w.form) {
      case CodeForm::kBytes:
        strip_tokens<Form::kBytes, Simd::kTokens>(w, strip, codes, x, 0, y);
        break;
      case CodeForm::kNibbles:
        if (unpack) {
          unpack_strip<Form::kNibbles>(w, codes, scratch);
          strip_tokens<Form::kSmallBytes, Simd::kTokens>(w, strip, scratch, x, 0, y);
        } else {
          strip_tokens<Form::kNibbles, Simd::kTokens>(w, strip, codes, x, 0, y);
        }
        break;
      case CodeForm::kNibbleTable:
        if (unpack) {
          unpack_strip<Form::kNibbleTable>(w, codes, scratch);
          strip_tokens<Form::kBytes, Simd::kTokens>(w, strip, scratch, x, 0, y);
        } else {
          strip_tokens<Form::kNibbleTable, Simd::kTokens>(w, strip, codes, x, 0, y);
        }
        break;
    }
  }
}

void outliers_product(const Strips& w, size_t strip, const float* x, std::span<const uint32_t> outliers,
                      float* out) {
  const uint8_t* const codes = w.codes + strip * w.strip_bytes();
  const float* const scales = static_cast<const float*>(w.scales) + strip * kStripOutputs;
  const typename Simd::Floats inverse127 = Simd::broadcast(1.f / 127.f);
  for (size_t lane = 0; lane < kStripOutputs; lane += Simd::kLanes) {
    const typename Simd::Floats scale = Simd::load(scales + lane);
    typename Simd::Floats sums = Simd::zero();
    for (const uint32_t k : outliers) {
      const typename Simd::Codes line = Simd::load_codes(codes + k / 4 * kLineBytes + 4 * lane);
      const typename Simd::Floats weight =
          Simd::mul(Simd::mul(Simd::centred(line, k % 4), scale), inverse127);
      sums = Simd::fma(Simd::broadcast(x[k]), weight, sums);
    }
    Simd::store(out + lane, sums);
  }
}

}  // namespace
}  // namespace nibble::kernels
