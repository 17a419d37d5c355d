// The loops of probe.h on the vectors of one instruction set. No include guard: probe_targets.cc includes it
// once for each, inside its region and namespace, with
//
//   struct Vectors, which has
//     Bytes, load(p), exclusive_or(a, b), words(v, uint64_t*)
//     Floats, set(x), multiply_add(a, b, c), add(a, b), first(v)
//     multiply_add_bytes(sums, factor): into the 32-bit lanes of Bytes
//     set_bytes(x), add_integers(a, b), first_integer(v)
//     hide(v): the compiler knows nothing of its value any more

// The pieces at one pace, kProbeStep bytes of each in turn; prefetched by their own distance, since the
// hardware stops at the end of a page.
template <size_t kStreams>
uint64_t read_pieces(const std::byte* data, size_t stream_bytes) {
  constexpr size_t kAhead = 4096;
  constexpr size_t kWidth = sizeof(Vectors::Bytes);
  Vectors::Bytes sums[4] = {};
  for (size_t i = 0; i < stream_bytes; i += kProbeStep) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kStreams; ++s) {
      const std::byte* const p = data + s * stream_bytes + i;
      NIBBLE_UNROLL
      for (size_t k = 0; k < kProbeStep; k += 64) {
        __builtin_prefetch(p + k + kAhead);
      }
      NIBBLE_UNROLL
      for (size_t k = 0; k < kProbeStep; k += kWidth) {
        sums[k / kWidth % 4] = Vectors::exclusive_or(sums[k / kWidth % 4], Vectors::load(p + k));
      }
    }
  }
  alignas(64) uint64_t words[kWidth / sizeof(uint64_t)];
  Vectors::words(
      Vectors::exclusive_or(Vectors::exclusive_or(sums[0], sums[1]), Vectors::exclusive_or(sums[2], sums[3])),
      words);
  uint64_t sum = 0;
  for (const uint64_t word : words) sum ^= word;
  return sum;
}

uint64_t read_streams(const std::byte* data, size_t stream_bytes, size_t streams) {
  if (streams >= 8) return read_pieces<8>(data, stream_bytes);
  if (streams >= 4) return read_pieces<4>(data, stream_bytes);
  if (streams >= 2) return read_pieces<2>(data, stream_bytes);
  return read_pieces<1>(data, stream_bytes);
}

// Sums that are known to be equal would be one sum, whose latency would be counted kProbeSums times.
template <class Sum>
void hide_all(Sum (&sums)[kProbeSums]) {
  NIBBLE_UNROLL
  for (size_t s = 0; s < kProbeSums; ++s) Vectors::hide(sums[s]);
}

float multiply_add_f32(size_t rounds) {
  Vectors::Floats sums[kProbeSums] = {};
  hide_all(sums);
  const Vectors::Floats factor = Vectors::set(0.5f);
  for (size_t i = 0; i < rounds; ++i) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kProbeSums; ++s) sums[s] = Vectors::multiply_add(sums[s], factor, factor);
  }
  Vectors::Floats all = Vectors::set(0.f);
  for (size_t s = 0; s < kProbeSums; ++s) all = Vectors::add(all, sums[s]);
  return Vectors::first(all);
}

int32_t multiply_add_int8(size_t rounds) {
  Vectors::Bytes sums[kProbeSums] = {};
  hide_all(sums);
  Vectors::Bytes factor = Vectors::set_bytes(1);
  for (size_t i = 0; i < rounds; ++i) {
    NIBBLE_UNROLL
    for (size_t s = 0; s < kProbeSums; ++s) sums[s] = Vectors::multiply_add_bytes(sums[s], factor);
  }
  Vectors::Bytes all = {};
  for (size_t s = 0; s < kProbeSums; ++s) all = Vectors::add_integers(all, sums[s]);
  return Vectors::first_integer(all);
}

inline constexpr ProbeLoops kLoops = {read_streams, multiply_add_f32, multiply_add_int8,
                                      sizeof(Vectors::Floats) / sizeof(float)};
