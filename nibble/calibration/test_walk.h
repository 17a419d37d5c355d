#ifndef NIBBLE_CALIBRATION_TEST_WALK_H_
#define NIBBLE_CALIBRATION_TEST_WALK_H_

// Models of tests/data under a BlockWalk, and the plain arithmetic that its results are compared with.

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nibble/calibration/block_walk.h"
#include "nibble/checkpoint/model_files.h"
#include "tests/support/fixtures.h"

namespace nibble::test {

// Rows of numbers in double precision.
struct Table {
  size_t rows = 0, cols = 0;
  std::vector<double> values = {};

  Table() = default;
  Table(size_t r, size_t c) : rows(r), cols(c), values(r * c) {}
  explicit Table(MatrixView<const float> from) : Table(from.rows(), from.cols()) {
    for (size_t r = 0; r < rows; ++r) std::copy_n(from.row(r), cols, values.begin() + long(r * cols));
  }
  double& at(size_t r, size_t c) { return values[r * cols + c]; }
  double at(size_t r, size_t c) const { return values[r * cols + c]; }
};

// a bᵀ
inline Table times_transposed(const Table& a, const Table& b) {
  Table y(a.rows, b.rows);
  for (size_t r = 0; r < a.rows; ++r) {
    for (size_t o = 0; o < b.rows; ++o) {
      for (size_t i = 0; i < a.cols; ++i) y.at(r, o) += a.at(r, i) * b.at(o, i);
    }
  }
  return y;
}

// aᵀ b / rows
inline Table mean_products(const Table& a, const Table& b) {
  Table y(a.cols, b.cols);
  for (size_t r = 0; r < a.rows; ++r) {
    for (size_t i = 0; i < a.cols; ++i) {
      for (size_t k = 0; k < b.cols; ++k) y.at(i, k) += a.at(r, i) * b.at(r, k) / double(a.rows);
    }
  }
  return y;
}

inline Table minus(const Table& a, const Table& b) {
  Table y = a;
  for (size_t i = 0; i < y.values.size(); ++i) y.values[i] -= b.values[i];
  return y;
}

inline Table rms_norm(const Table& x, const std::vector<float>& weight, double eps) {
  Table y = x;
  for (size_t r = 0; r < x.rows; ++r) {
    double sum = 0.0;
    for (size_t c = 0; c < x.cols; ++c) sum += x.at(r, c) * x.at(r, c);
    const double scale = 1.0 / std::sqrt(sum / double(x.cols) + eps);
    for (size_t c = 0; c < x.cols; ++c) y.at(r, c) *= scale * weight[c];
  }
  return y;
}

inline Table layer_norm(const Table& x, const std::vector<float>& weight, const std::vector<float>& bias,
                        double eps) {
  Table y = x;
  for (size_t r = 0; r < x.rows; ++r) {
    double mean = 0.0;
    double square = 0.0;
    for (size_t c = 0; c < x.cols; ++c) mean += x.at(r, c) / double(x.cols);
    for (size_t c = 0; c < x.cols; ++c) square += (x.at(r, c) - mean) * (x.at(r, c) - mean) / double(x.cols);
    for (size_t c = 0; c < x.cols; ++c) {
      y.at(r, c) = (x.at(r, c) - mean) / std::sqrt(square + eps) * weight[c] + bias[c];
    }
  }
  return y;
}

inline Table plus_bias(Table y, const std::vector<float>& bias) {
  for (size_t r = 0; r < y.rows; ++r) {
    for (size_t c = 0; c < y.cols; ++c) y.at(r, c) += bias[c];
  }
  return y;
}

inline Table gelu_tanh(Table y) {
  for (double& v : y.values) {
    v *= 0.5 * (1.0 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v)));
  }
  return y;
}

// silu(x gateᵀ) * (x upᵀ)
inline Table gated(const Table& x, const Table& gate, const Table& up) {
  Table y = times_transposed(x, gate);
  const Table other = times_transposed(x, up);
  for (size_t i = 0; i < y.values.size(); ++i) {
    y.values[i] *= other.values[i] / (1.0 + std::exp(-y.values[i]));
  }
  return y;
}

inline Table choose_rows(const Table& from, const std::vector<size_t>& rows) {
  Table y(rows.size(), from.cols);
  for (size_t i = 0; i < rows.size(); ++i) {
    for (size_t c = 0; c < from.cols; ++c) y.at(i, c) = from.at(rows[i], c);
  }
  return y;
}

// Within `share` of the largest expected value.
inline void expect_close(const Table& ours, const Table& expected, double share, const std::string& what) {
  ASSERT_EQ(ours.rows, expected.rows) << what;
  ASSERT_EQ(ours.cols, expected.cols) << what;
  double largest = 0.0;
  double difference = 0.0;
  for (size_t i = 0; i < ours.values.size(); ++i) {
    largest = std::max(largest, std::fabs(expected.values[i]));
    difference = std::max(difference, std::fabs(ours.values[i] - expected.values[i]));
  }
  EXPECT_LE(difference, share * largest) << what;
  EXPECT_GT(largest, 0.0) << what;
}

// Sequences of different lengths, none longer than 24 tokens (llama_rope_dynamic stretches there).
inline CalibrationData some_tokens(size_t count, size_t vocab_size) {
  CalibrationData data;
  uint32_t state = 1;
  for (size_t s = 0; s < count; ++s) {
    std::vector<int32_t> tokens(11 + 7 * s % 13);
    for (int32_t& token : tokens) {
      state = state * 1664525u + 1013904223u;
      token = static_cast<int32_t>((state >> 8) % vocab_size);
    }
    data.sequences.push_back(std::move(tokens));
  }
  return data;
}

// What quantize() was shown, copied.
struct Shown {
  std::vector<std::string> modules;
  size_t tokens = 0;
  bool empty = false;
  Table gram, mean_abs;
  std::map<std::string, Table> weight, shift, result;
};

inline Shown copy_shown(const InputStatistics& seen, std::span<const LinearTask> tasks) {
  Shown shown;
  shown.tokens = seen.tokens;
  shown.empty = seen.gram.data() == nullptr;
  shown.gram = Table(seen.gram);
  shown.mean_abs = Table(MatrixView<const float>(seen.mean_abs.data(), 1, seen.mean_abs.size()));
  for (const LinearTask& task : tasks) {
    shown.modules.push_back(task.module);
    shown.weight[task.module] = Table(task.weight);
    shown.shift[task.module] = Table(task.shift);
    shown.result[task.module] = Table(MatrixView<const float>(task.result));
  }
  return shown;
}

inline Status keep_weights(const InputStatistics&, std::span<LinearTask>) { return {}; }

// To a coarse grid, so that the streams part.
inline Status round_coarsely(const InputStatistics&, std::span<LinearTask> tasks) {
  constexpr float kStep = 0.02f;
  for (LinearTask& task : tasks) {
    for (size_t r = 0; r < task.weight.rows(); ++r) {
      for (size_t c = 0; c < task.weight.cols(); ++c) {
        task.result.row(r)[c] = kStep * std::nearbyint(task.weight.row(r)[c] / kStep);
      }
    }
  }
  return {};
}

inline WalkOptions exact_options() {
  WalkOptions options;
  options.activations = DType::kF32;
  options.tokens_at_once = 40;  // a few groups
  return options;
}

// A model of tests/data/architectures that is walked.
struct WalkedModel {
  WalkedModel(const std::string& name, CalibrationData tokens, const WalkOptions& options, size_t threads = 1)
      : data(std::move(tokens)), pool(threads) {
    const auto files = find_model((data_folder() / "architectures" / name).string());
    EXPECT_TRUE(files) << to_string(files.error());
    auto opened = ModelSource::open(*files);
    EXPECT_TRUE(opened) << to_string(opened.error());
    source = *std::move(opened);
    walk = std::make_unique<BlockWalk>(source, data, options, pool);
    const Status started = walk->start();
    EXPECT_TRUE(started) << to_string(started.error());
  }

  size_t num_layers() const { return source.config.num_hidden_layers; }
  size_t hidden() const { return source.config.hidden_size; }
  std::vector<float> rows(bool quantized, size_t first, size_t count) const {
    std::vector<float> values(count * hidden());
    EXPECT_TRUE(walk->stream(quantized, first, {values.data(), count, hidden()}));
    return values;
  }
  Table stream(bool quantized, size_t count) const {
    const std::vector<float> values = rows(quantized, 0, count);
    return Table(MatrixView<const float>(values.data(), count, hidden()));
  }
  std::vector<float> tensor(const std::string& name) const {
    const auto found = source.checkpoint->tensor(name);
    EXPECT_TRUE(found) << name;
    return *to_floats(*found);
  }
  void walk_all(const QuantizeLinears& quantize) {
    for (size_t layer = 0; layer < num_layers(); ++layer) {
      const auto report = walk->walk(layer, {.known = {}, .quantize = quantize});
      ASSERT_TRUE(report) << to_string(report.error());
    }
  }

  ModelSource source;
  CalibrationData data;
  ThreadPool pool;
  std::unique_ptr<BlockWalk> walk;
};

}  // namespace nibble::test

#endif  // NIBBLE_CALIBRATION_TEST_WALK_H_
