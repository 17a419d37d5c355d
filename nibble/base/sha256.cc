#include "nibble/base/sha256.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

namespace nibble {
namespace {

constexpr std::array<uint32_t, 64> kRoundConstants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

void mix_block(const std::byte* block, std::array<uint32_t, 8>& state) {
  std::array<uint32_t, 64> w;
  for (size_t i = 0; i < 16; ++i) {
    uint32_t word = 0;
    for (size_t b = 0; b < 4; ++b) word = (word << 8) | std::to_integer<uint32_t>(block[4 * i + b]);
    w[i] = word;
  }
  for (size_t i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (size_t i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRoundConstants[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const std::array<uint32_t, 8> mixed = {a, b, c, d, e, f, g, h};
  for (size_t i = 0; i < 8; ++i) state[i] += mixed[i];
}

}  // namespace

void Sha256::update(std::span<const std::byte> bytes) {
  size_t pending = size_ % block_.size();
  size_ += bytes.size();
  if (pending > 0) {
    const size_t taken = std::min(bytes.size(), block_.size() - pending);
    std::copy_n(bytes.begin(), taken, block_.begin() + static_cast<ptrdiff_t>(pending));
    bytes = bytes.subspan(taken);
    pending += taken;
    if (pending < block_.size()) return;
    mix_block(block_.data(), state_);
  }
  for (; bytes.size() >= block_.size(); bytes = bytes.subspan(block_.size())) mix_block(bytes.data(), state_);
  std::copy(bytes.begin(), bytes.end(), block_.begin());
}

std::string Sha256::finish() {
  // A one bit, zeros up to 8 bytes before the end of a block, and the length in bits.
  const uint64_t bits = size_ * 8;
  std::array<std::byte, 72> padding{};
  padding[0] = std::byte{0x80};
  const size_t used = (size_ + 1 + 8) % block_.size();
  const size_t zeros = used == 0 ? 0 : block_.size() - used;
  for (size_t b = 0; b < 8; ++b) padding[zeros + 8 - b] = static_cast<std::byte>(bits >> (8 * b));
  update(std::span(padding).first(1 + zeros + 8));

  std::string hex;
  for (const uint32_t word : state_) hex += fmt::format("{:08x}", word);
  *this = Sha256();
  return hex;
}

std::string sha256(std::span<const std::byte> bytes) {
  Sha256 digest;
  digest.update(bytes);
  return digest.finish();
}

}  // namespace nibble
