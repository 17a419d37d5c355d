// What the Simd of strips-inl.h has in common on all ARM processors: all but the dot products. Sixteen
// outputs are four registers, written out: GCC keeps arrays of them in memory. Inside the region of the
// including file.

namespace nibble::kernels {
namespace {

struct SimdNeon {
  static constexpr size_t kLanes = 16;
  // The 16 sums of 4 rows, a line's codes and an input fit 32 registers; sums of the group wait in the L1
  // cache.
  static constexpr size_t kStrips = 1;
  static constexpr size_t kStripsOfFewRows = 1;
  static constexpr size_t kRows = 4;
  static constexpr size_t kPackedRows = 4;

  struct Codes {
    uint8x16_t a, b, c, d;
  };
  struct Integers {
    int32x4_t a, b, c, d;
  };
  struct Floats {
    float32x4_t a, b, c, d;
  };

  static NIBBLE_INLINE Codes load_codes(const uint8_t* p) {
    return {vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)};
  }
  static NIBBLE_INLINE void store_codes(uint8_t* p, const Codes& c) {
    vst1q_u8(p, c.a);
    vst1q_u8(p + 16, c.b);
    vst1q_u8(p + 32, c.c);
    vst1q_u8(p + 48, c.d);
  }
  static NIBBLE_INLINE Codes load_table(const uint8_t* p) { return same(vld1q_u8(p)); }
  template <int n>
  static NIBBLE_INLINE Codes shifted(const Codes& c) {
    return {shifted<n>(c.a), shifted<n>(c.b), shifted<n>(c.c), shifted<n>(c.d)};
  }
  static NIBBLE_INLINE Codes join(const Codes& a, const Codes& b) {
    const uint8x16_t mask = vdupq_n_u8(0x33);
    return {vbslq_u8(mask, a.a, b.a), vbslq_u8(mask, a.b, b.b), vbslq_u8(mask, a.c, b.c),
            vbslq_u8(mask, a.d, b.d)};
  }
  template <int kShift, int kMask>
  static NIBBLE_INLINE Codes field(const Codes& c) {
    return {field<kShift, kMask>(c.a), field<kShift, kMask>(c.b), field<kShift, kMask>(c.c),
            field<kShift, kMask>(c.d)};
  }
  static NIBBLE_INLINE Codes lookup(const Codes& table, const Codes& c) {
    return {vqtbl1q_u8(table.a, c.a), vqtbl1q_u8(table.a, c.b), vqtbl1q_u8(table.a, c.c),
            vqtbl1q_u8(table.a, c.d)};
  }
  static NIBBLE_INLINE Codes lookup_low(const Codes& table, const Codes& c) {
    return lookup(table, field<0, 0x0F>(c));
  }
  static NIBBLE_INLINE Codes lookup_high(const Codes& table, const Codes& c) {
    return lookup(table, field<4, 0x0F>(c));
  }
  static NIBBLE_INLINE Codes broadcast_four(const int8_t* four) {
    uint32_t bits;
    std::memcpy(&bits, four, sizeof(bits));
    return same(vreinterpretq_u8_u32(vdupq_n_u32(bits)));
  }

  static NIBBLE_INLINE Integers high_and_low(const Integers& h, const Integers& l) {
    return {vaddq_s32(vshlq_n_s32(h.a, 8), l.a), vaddq_s32(vshlq_n_s32(h.b, 8), l.b),
            vaddq_s32(vshlq_n_s32(h.c, 8), l.c), vaddq_s32(vshlq_n_s32(h.d, 8), l.d)};
  }
  static NIBBLE_INLINE Floats floats(const Integers& i) {
    return {vcvtq_f32_s32(i.a), vcvtq_f32_s32(i.b), vcvtq_f32_s32(i.c), vcvtq_f32_s32(i.d)};
  }

  static NIBBLE_INLINE Floats zero() { return broadcast(0.f); }
  static NIBBLE_INLINE Floats broadcast(float value) {
    const float32x4_t v = vdupq_n_f32(value);
    return {v, v, v, v};
  }
  static NIBBLE_INLINE Floats load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
  }
  static NIBBLE_INLINE Floats load_half(const uint16_t* p) {
    return {widen_half(p), widen_half(p + 4), widen_half(p + 8), widen_half(p + 12)};
  }
  static NIBBLE_INLINE Floats load_bytes(const uint8_t* p) {
    const uint8x16_t bytes = vld1q_u8(p);
    const uint16x8_t first = vmovl_u8(vget_low_u8(bytes));
    const uint16x8_t second = vmovl_u8(vget_high_u8(bytes));
    return {to_floats(vget_low_u16(first)), to_floats(vget_high_u16(first)), to_floats(vget_low_u16(second)),
            to_floats(vget_high_u16(second))};
  }
  static NIBBLE_INLINE Integers load_integers(const int32_t* p) {
    return {vld1q_s32(p), vld1q_s32(p + 4), vld1q_s32(p + 8), vld1q_s32(p + 12)};
  }
  static NIBBLE_INLINE void store(float* p, const Floats& f) {
    vst1q_f32(p, f.a);
    vst1q_f32(p + 4, f.b);
    vst1q_f32(p + 8, f.c);
    vst1q_f32(p + 12, f.d);
  }
  static NIBBLE_INLINE Floats centred(const Codes& c, uint32_t j) {
    const int32x4_t shift = vdupq_n_s32(-static_cast<int32_t>(8 * j));  // to the right
    return {centred(c.a, shift), centred(c.b, shift), centred(c.c, shift), centred(c.d, shift)};
  }
  static NIBBLE_INLINE Floats add(const Floats& x, const Floats& y) {
    return {vaddq_f32(x.a, y.a), vaddq_f32(x.b, y.b), vaddq_f32(x.c, y.c), vaddq_f32(x.d, y.d)};
  }
  static NIBBLE_INLINE Floats mul(const Floats& x, const Floats& y) {
    return {vmulq_f32(x.a, y.a), vmulq_f32(x.b, y.b), vmulq_f32(x.c, y.c), vmulq_f32(x.d, y.d)};
  }
  static NIBBLE_INLINE Floats fma(const Floats& x, const Floats& y, const Floats& sum) {
    return {vfmaq_f32(sum.a, x.a, y.a), vfmaq_f32(sum.b, x.b, y.b), vfmaq_f32(sum.c, x.c, y.c),
            vfmaq_f32(sum.d, x.d, y.d)};
  }
  static NIBBLE_INLINE Floats negative_fma(const Floats& x, const Floats& y, const Floats& sum) {
    return {vfmsq_f32(sum.a, x.a, y.a), vfmsq_f32(sum.b, x.b, y.b), vfmsq_f32(sum.c, x.c, y.c),
            vfmsq_f32(sum.d, x.d, y.d)};
  }
  static NIBBLE_INLINE void prefetch(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }
  static NIBBLE_INLINE void prefetch_near(const uint8_t* p) { __builtin_prefetch(p, 0, 3); }

  // Whole bytes as signed ones, less 128, for dot products that know no others. What is missing is 128 times
  // the sum of the inputs, exactly.
  static NIBBLE_INLINE Codes less_128(const Codes& c) {
    const uint8x16_t top = vdupq_n_u8(0x80);
    return {veorq_u8(c.a, top), veorq_u8(c.b, top), veorq_u8(c.c, top), veorq_u8(c.d, top)};
  }
  static NIBBLE_INLINE Integers add_128_times(const Integers& i, int32x4_t inputs) {
    const int32x4_t more = vshlq_n_s32(inputs, 7);
    return {vaddq_s32(i.a, more), vaddq_s32(i.b, more), vaddq_s32(i.c, more), vaddq_s32(i.d, more)};
  }

  // Sums of products of signed bytes. Product::add(lanes, codes, inputs): each lane's four more.
  // Codes below 16 are signed bytes as they are.
  template <class Product>
  struct SmallSum {
    Integers lanes;
    NIBBLE_INLINE void clear() { lanes.a = lanes.b = lanes.c = lanes.d = vdupq_n_s32(0); }
    NIBBLE_INLINE void add(const Codes& c, const Codes& inputs) {
      lanes.a = Product::add(lanes.a, c.a, inputs.a);
      lanes.b = Product::add(lanes.b, c.b, inputs.a);
      lanes.c = Product::add(lanes.c, c.c, inputs.a);
      lanes.d = Product::add(lanes.d, c.d, inputs.a);
    }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Integers integers() const { return lanes; }
  };
  template <class Product>
  struct ByteSum {
    SmallSum<Product> products;
    int32x4_t inputs;
    NIBBLE_INLINE void clear() {
      products.clear();
      inputs = vdupq_n_s32(0);
    }
    NIBBLE_INLINE void add(const Codes& c, const Codes& a) {
      products.add(less_128(c), a);
      inputs = Product::add(inputs, vdupq_n_u8(1), a.a);
    }
    NIBBLE_INLINE void end_block() {}
    NIBBLE_INLINE Integers integers() const { return add_128_times(products.lanes, inputs); }
  };

 private:
  template <int n>
  static NIBBLE_INLINE uint8x16_t shifted(uint8x16_t v) {
    if constexpr (n < 0) return vshlq_n_u8(v, -n);
    if constexpr (n > 0) return vshrq_n_u8(v, n);
    return v;
  }
  template <int kShift, int kMask>
  static NIBBLE_INLINE uint8x16_t field(uint8x16_t v) {
    v = shifted<kShift>(v);
    if constexpr (0xFF >> kShift != kMask) v = vandq_u8(v, vdupq_n_u8(kMask));
    return v;
  }
  static NIBBLE_INLINE Codes same(uint8x16_t v) { return {v, v, v, v}; }
  static NIBBLE_INLINE float32x4_t widen_half(const uint16_t* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
  }
  static NIBBLE_INLINE float32x4_t to_floats(uint16x4_t v) { return vcvtq_f32_u32(vmovl_u16(v)); }
  static NIBBLE_INLINE float32x4_t centred(uint8x16_t v, int32x4_t shift) {
    const uint32x4_t byte = vandq_u32(vshlq_u32(vreinterpretq_u32_u8(v), shift), vdupq_n_u32(0xFF));
    return vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(byte), vdupq_n_s32(128)));
  }
};

}  // namespace
}  // namespace nibble::kernels
