// The Simd of strips-inl.h without any instruction set.

#include <cmath>
#include <cstring>

#include "nibble/base/float16.h"
#include "nibble/kernels/strips_targets.h"

namespace nibble::kernels {
namespace {

// Plain C++ with the shape of the vector code. std::fma, since the vector code rounds once too.
struct Simd {
  static constexpr size_t kLanes = 16;
  static constexpr size_t kStrips = 1;
  static constexpr size_t kStripsOfFewRows = 1;
  static constexpr size_t kRows = 4;
  static constexpr size_t kPackedRows = 4;

  struct Codes {
    uint8_t byte[4 * kLanes];
  };
  struct Integers {
    int32_t lane[kLanes];
  };
  struct Floats {
    float lane[kLanes];
  };

  static Codes load_codes(const uint8_t* p) {
    Codes c;
    std::memcpy(c.byte, p, sizeof(c.byte));
    return c;
  }
  static void store_codes(uint8_t* p, const Codes& c) { std::memcpy(p, c.byte, sizeof(c.byte)); }
  static Codes load_table(const uint8_t* p) {
    Codes c = {};
    std::memcpy(c.byte, p, 16);
    return c;
  }
  template <int n>
  static Codes shifted(Codes c) {
    for (uint8_t& b : c.byte) b = static_cast<uint8_t>(n < 0 ? b << -n : b >> n);
    return c;
  }
  static Codes join(const Codes& a, Codes b) {
    for (size_t i = 0; i < sizeof(b.byte); ++i) {
      b.byte[i] = static_cast<uint8_t>((a.byte[i] & 0x33) | (b.byte[i] & 0xCC));
    }
    return b;
  }
  template <int kShift, int kMask>
  static Codes field(Codes c) {
    for (uint8_t& b : c.byte) b = static_cast<uint8_t>(b >> kShift & kMask);
    return c;
  }
  static Codes broadcast_four(const int8_t* four) {
    Codes c;
    for (size_t l = 0; l < kLanes; ++l) std::memcpy(c.byte + 4 * l, four, 4);
    return c;
  }
  static Codes lookup_low(const Codes& table, Codes c) {
    for (uint8_t& b : c.byte) b = table.byte[b & 0x0F];
    return c;
  }
  static Codes lookup_high(const Codes& table, Codes c) {
    for (uint8_t& b : c.byte) b = table.byte[b >> 4];
    return c;
  }

  template <Form>
  struct Sum {
    int32_t lane[kLanes];
    void clear() { std::memset(lane, 0, sizeof(lane)); }
    void add(const Codes& c, const Codes& a) {
      for (size_t i = 0; i < 4 * kLanes; ++i) {
        lane[i / 4] += int{c.byte[i]} * int{static_cast<int8_t>(a.byte[i])};
      }
    }
    void end_block() {}
    Integers integers() const {
      Integers i;
      std::memcpy(i.lane, lane, sizeof(i.lane));
      return i;
    }
  };

  static Integers high_and_low(Integers high, const Integers& low) {
    for (size_t l = 0; l < kLanes; ++l) high.lane[l] = high.lane[l] * 256 + low.lane[l];
    return high;
  }
  static Floats floats(const Integers& i) {
    Floats f;
    for (size_t l = 0; l < kLanes; ++l) f.lane[l] = static_cast<float>(i.lane[l]);
    return f;
  }

  static Floats zero() { return {}; }
  static Floats broadcast(float value) {
    Floats f;
    for (float& v : f.lane) v = value;
    return f;
  }
  static Floats load(const float* p) {
    Floats f;
    std::memcpy(f.lane, p, sizeof(f.lane));
    return f;
  }
  static Floats load_half(const uint16_t* p) {
    Floats f;
    for (size_t l = 0; l < kLanes; ++l) f.lane[l] = fp16_to_float(p[l]);
    return f;
  }
  static Floats load_bytes(const uint8_t* p) {
    Floats f;
    for (size_t l = 0; l < kLanes; ++l) f.lane[l] = static_cast<float>(p[l]);
    return f;
  }
  static Integers load_integers(const int32_t* p) {
    Integers i;
    std::memcpy(i.lane, p, sizeof(i.lane));
    return i;
  }
  static void store(float* p, const Floats& f) { std::memcpy(p, f.lane, sizeof(f.lane)); }
  static Floats centred(const Codes& c, uint32_t j) {
    Floats f;
    for (size_t l = 0; l < kLanes; ++l) f.lane[l] = static_cast<float>(int{c.byte[4 * l + j]} - 128);
    return f;
  }
  static Floats mul(const Floats& a, Floats b) {
    for (size_t l = 0; l < kLanes; ++l) b.lane[l] *= a.lane[l];
    return b;
  }
  static Floats add(const Floats& a, Floats b) {
    for (size_t l = 0; l < kLanes; ++l) b.lane[l] += a.lane[l];
    return b;
  }
  static Floats fma(const Floats& a, const Floats& b, Floats sum) {
    for (size_t l = 0; l < kLanes; ++l) sum.lane[l] = std::fma(a.lane[l], b.lane[l], sum.lane[l]);
    return sum;
  }
  static Floats negative_fma(const Floats& a, const Floats& b, Floats sum) {
    for (size_t l = 0; l < kLanes; ++l) sum.lane[l] = std::fma(-a.lane[l], b.lane[l], sum.lane[l]);
    return sum;
  }
  static void prefetch(const uint8_t*) {}
  static void prefetch_near(const uint8_t*) {}
};

}  // namespace
}  // namespace nibble::kernels
