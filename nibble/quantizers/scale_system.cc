#include "nibble/quantizers/scale_system.h"

#include <algorithm>
#include <cmath>

#include "nibble/base/float16.h"
#include "nibble/quantizers/lane_kernels.h"

namespace nibble {
namespace {

constexpr double kRidge = 1e-4;  // of the mean diagonal: nearly parallel groups share what they fit

// Loops over a strip of lanes have a constant length, so that the compiler makes vectors of them.
using Strip = double[kStrip];

size_t triangle(size_t k, size_t l) { return k * (k + 1) / 2 + l; }

void load_system(const ScaleSystem& system, size_t strip, Strip* a, Strip* x) {
  Strip ridge = {};
  for (size_t k = 0; k < system.count; ++k) {
    for (size_t l = 0; l <= k; ++l) {
      const float* const from = system.gram + (k * system.count + l) * system.lanes + strip;
      for (size_t i = 0; i < kStrip; ++i) a[triangle(k, l)][i] = static_cast<double>(from[i]);
    }
    for (size_t i = 0; i < kStrip; ++i) {
      ridge[i] += a[triangle(k, k)][i];
      x[k][i] = static_cast<double>(system.gradient[k * system.lanes + strip + i]);
    }
  }
  for (size_t i = 0; i < kStrip; ++i) ridge[i] *= kRidge / static_cast<double>(system.count);
  for (size_t k = 0; k < system.count; ++k) {
    for (size_t i = 0; i < kStrip; ++i) a[triangle(k, k)][i] += ridge[i];
  }
}

// x := a⁻¹ x by Cholesky. A lane whose matrix is not positive definite gets numbers without meaning,
// which the caller finds out from the loss.
void solve_strip(Strip* a, Strip* x, size_t count) {
  for (size_t k = 0; k < count; ++k) {
    for (size_t l = 0; l <= k; ++l) {
      Strip& to = a[triangle(k, l)];
      for (size_t m = 0; m < l; ++m) {
        const Strip& left = a[triangle(k, m)];
        const Strip& right = a[triangle(l, m)];
        for (size_t i = 0; i < kStrip; ++i) to[i] -= left[i] * right[i];
      }
      const Strip& pivot = a[triangle(l, l)];
      if (l < k) {
        for (size_t i = 0; i < kStrip; ++i) to[i] *= pivot[i];
      } else {  // diagonals hold their inverse
        for (size_t i = 0; i < kStrip; ++i) to[i] = to[i] > 0 ? 1 / std::sqrt(to[i]) : 0;
      }
    }
    for (size_t m = 0; m < k; ++m) {
      for (size_t i = 0; i < kStrip; ++i) x[k][i] -= a[triangle(k, m)][i] * x[m][i];
    }
    for (size_t i = 0; i < kStrip; ++i) x[k][i] *= a[triangle(k, k)][i];
  }
  for (size_t k = count; k-- > 0;) {
    for (size_t m = k + 1; m < count; ++m) {
      for (size_t i = 0; i < kStrip; ++i) x[k][i] -= a[triangle(m, k)][i] * x[m][i];
    }
    for (size_t i = 0; i < kStrip; ++i) x[k][i] *= a[triangle(k, k)][i];
  }
}

float moved_scale(float old, double step) {
  const float moved = fp16_to_float(float_to_fp16(static_cast<float>(static_cast<double>(old) + step)));
  return std::isfinite(moved) && moved * old > 0.f ? moved : old;
}

// d A dᵀ - 2 d·gradient.
void loss_change(const ScaleSystem& system, size_t strip, const Strip* steps, double* change) {
  Strip sums = {};
  for (size_t k = 0; k < system.count; ++k) {
    const float* const row = system.gram + k * system.count * system.lanes + strip;
    const float* const gradient = system.gradient + k * system.lanes + strip;
    Strip half = {};
    for (size_t l = 0; l < k; ++l) {
      for (size_t i = 0; i < kStrip; ++i) {
        half[i] += static_cast<double>(row[l * system.lanes + i]) * steps[l][i];
      }
    }
    for (size_t i = 0; i < kStrip; ++i) {
      const double own = static_cast<double>(row[k * system.lanes + i]) * steps[k][i];
      sums[i] += steps[k][i] * (2 * half[i] + own - 2 * static_cast<double>(gradient[i]));
    }
  }
  std::copy_n(sums, kStrip, change);
}

}  // namespace

void improve_scales(const ScaleSystem& system, float* scales, double* changes, std::vector<double>& scratch) {
  const size_t count = system.count;
  scratch.resize((triangle(count, 0) + count) * kStrip);
  auto* const a = reinterpret_cast<Strip*>(scratch.data());
  Strip* const x = a + triangle(count, 0);
  for (size_t strip = 0; strip < system.lanes; strip += kStrip) {
    load_system(system, strip, a, x);
    solve_strip(a, x, count);
    for (size_t k = 0; k < count; ++k) {
      for (size_t i = 0; i < kStrip; ++i) {
        const float old = scales[k * system.lanes + strip + i];
        x[k][i] = static_cast<double>(moved_scale(old, x[k][i])) - static_cast<double>(old);
      }
    }
    loss_change(system, strip, x, changes + strip);
    for (size_t i = 0; i < kStrip; ++i) {
      double& change = changes[strip + i];
      if (!(change < 0)) {
        change = 0;
        continue;
      }
      for (size_t k = 0; k < count; ++k) {
        float& scale = scales[k * system.lanes + strip + i];
        scale = static_cast<float>(static_cast<double>(scale) + x[k][i]);
      }
    }
  }
}

}  // namespace nibble
