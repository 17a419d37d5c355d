#include "nibble/quantizers/feedback_solver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nibble/base/float16.h"
#include "nibble/linalg/cholesky.h"
#include "nibble/quantizers/test_matrices.h"

namespace nibble {
namespace {

// Everything that a call needs, and what is asserted about its result, in double.
struct Problem {
  Problem(size_t out, size_t in, unsigned seed)
      : weight(random_matrix(out, in, seed)),
        gram(second_moments(correlated_inputs(3 * in, in, seed + 100), 1.0 / static_cast<double>(3 * in))) {
    for (float& v : weight.values) v *= 0.05f;
  }

  void kill(size_t input) {
    for (size_t j = 0; j < gram.cols; ++j) gram.at(input, j) = gram.at(j, input) = 0.f;
  }

  FactoredHessian factored(const GptqSettings& settings, ThreadPool& pool) const {
    const ColumnOrder order = settings.desc_act ? ColumnOrder::kActivation : ColumnOrder::kMinPivot;
    auto hessian = factor_hessian(gram.view(), settings.group_size, order, damp, pool);
    EXPECT_TRUE(hessian.has_value());
    return std::move(*hessian);
  }

  SolvedWeight solve(const GptqSettings& settings, const SolverSteps& steps, size_t threads = 2,
                     CpuTarget target = cpu_target()) const {
    ThreadPool pool(threads);
    const MatrixView<const float> d = shift.values.empty() ? MatrixView<const float>() : shift.view();
    auto solved =
        solve_with_feedback(weight.view(), d, factored(settings, pool), settings, steps, pool, target);
    EXPECT_TRUE(solved.has_value());
    return std::move(*solved);
  }

  // tr(E H Eᵀ) / tr(W H Wᵀ) with the diagonal raised by `added`.
  double loss(const QuantizedWeight& w, double added = 0) const {
    double top = 0;
    double bottom = 0;
    for (size_t o = 0; o < weight.rows; ++o) {
      std::vector<double> error(weight.cols);
      for (size_t i = 0; i < weight.cols; ++i) {
        const size_t at = w.group_of(i) * w.out_features + o;
        const double value = double{w.scales[at]} * (w.codes[o * weight.cols + i] - double{w.zeros[at]});
        error[i] = double{weight.at(o, i)} - value;
      }
      top += quadratic([&](size_t i) { return error[i]; }, added);
      bottom += quadratic([&](size_t i) { return double{weight.at(o, i)}; }, added);
    }
    return top / bottom;
  }

  template <class Row>
  double quadratic(Row row, double added) const {
    double sum = 0;
    for (size_t i = 0; i < gram.rows; ++i) {
      double product = added * row(i);
      for (size_t j = 0; j < gram.cols; ++j) product += double{gram.at(i, j)} * row(j);
      sum += row(i) * product;
    }
    return sum;
  }

  double damping() const {
    double sum = 0;
    for (size_t i = 0; i < gram.rows; ++i) sum += double{gram.at(i, i)};
    return damp * sum / static_cast<double>(gram.rows);
  }

  TestMatrix weight;
  TestMatrix gram;
  TestMatrix shift = TestMatrix(0, 0);
  double damp = 0.01;
};

GptqSettings make_settings(int bits, size_t group_size, bool sym) {
  GptqSettings settings;
  settings.bits = bits;
  settings.group_size = group_size;
  settings.sym = sym;
  return settings;
}

constexpr SolverSteps kPlainGptq = {1, 1, 0, 0};

void expect_well_formed(const SolvedWeight& solved, const GptqSettings& settings, const std::string& what) {
  const QuantizedWeight& w = solved.weight;
  const size_t group_size =
      settings.group_size == 0 ? w.in_features : std::min(settings.group_size, w.in_features);
  const size_t groups = (w.in_features + group_size - 1) / group_size;
  EXPECT_EQ(w.group_size, group_size) << what;
  EXPECT_EQ(w.num_groups, groups) << what;
  EXPECT_EQ(w.bits, settings.bits);
  EXPECT_EQ(w.rounding, DType::kF16);
  ASSERT_EQ(w.codes.size(), w.out_features * w.in_features) << what;
  ASSERT_EQ(w.scales.size(), groups * w.out_features) << what;
  ASSERT_EQ(w.zeros.size(), groups * w.out_features) << what;
  const int max_code = (1 << settings.bits) - 1;
  for (const uint8_t code : w.codes) ASSERT_LE(code, max_code) << what;
  for (const float scale : w.scales) {
    ASSERT_EQ(scale, fp16_to_float(float_to_fp16(scale))) << what;
    ASSERT_TRUE(std::isfinite(scale)) << what;
    ASSERT_NE(scale, 0.f) << what;
    if (!settings.signed_scales) {
      ASSERT_GT(scale, 0.f) << what;
    }
  }
  for (const float zero : w.zeros) {
    ASSERT_EQ(zero, std::nearbyint(zero)) << what;
    ASSERT_GE(zero, settings.zero_may_be_0 ? 0.f : 1.f) << what;
    ASSERT_LE(zero, static_cast<float>(max_code)) << what;
    if (settings.sym) {
      ASSERT_EQ(zero, static_cast<float>(1 << (settings.bits - 1))) << what;
    }
  }
}

// The upper Cholesky factor U of the inverse, H⁻¹ = Uᵀ U, that the published recursion uses.
std::vector<double> inverse_factor(MatrixView<const float> hessian, ThreadPool& pool) {
  const size_t n = hessian.rows();
  std::vector<double> r(n * n), u(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) r[i * n + j] = double{hessian.row(i)[j]};
    u[i * n + i] = 1;
  }
  EXPECT_FALSE(linalg::cholesky_upper({r.data(), n, n}, pool));
  // H = R Rᵀ, so H⁻¹ = R⁻ᵀ R⁻¹ and U = R⁻¹.
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j + 1; i-- > 0;) {
      double sum = i == j ? 1 : 0;
      for (size_t k = i + 1; k <= j; ++k) sum -= r[i * n + k] * u[k * n + j];
      u[i * n + j] = sum / r[i * n + i];
    }
  }
  return u;
}

// GPTQ's column loop in double on the grids of `solved`; false at the first code that differs although
// it is not at a tie.
bool follows_the_recursion(const Problem& problem, const FactoredHessian& hessian, const QuantizedWeight& w,
                           ThreadPool& pool) {
  const size_t n = hessian.size;
  const std::vector<double> u = inverse_factor(hessian.damped_view(), pool);
  const double max_code = (1 << w.bits) - 1;
  for (size_t o = 0; o < w.out_features; ++o) {
    std::vector<double> values(n);
    for (size_t p = 0; p < n; ++p) values[p] = double{problem.weight.at(o, hessian.order[p])};
    for (size_t p = 0; p < n; ++p) {
      const size_t input = hessian.order[p];
      const size_t at = w.group_of(input) * w.out_features + o;
      const double level = values[p] / double{w.scales[at]};
      const double code = std::clamp(std::nearbyint(level) + double{w.zeros[at]}, 0.0, max_code);
      if (code != w.codes[o * n + input]) {
        if (std::fabs(std::fabs(level - std::nearbyint(level)) - 0.5) > 1e-3) return false;
        break;  // a tie that float decides otherwise: the rest of the row follows from it
      }
      const double error = values[p] - double{w.scales[at]} * (code - double{w.zeros[at]});
      for (size_t later = p; later < n; ++later) {
        values[later] -= error / u[p * n + p] * u[p * n + later];
      }
    }
  }
  return true;
}

TEST(FeedbackSolver, ChoosesTheCodesOfTheGptqRecursion) {
  ThreadPool pool(2);
  for (const bool sym : {false, true}) {
    for (const size_t group_size : {size_t{16}, size_t{20}, size_t{0}}) {
      for (const bool desc_act : {false, true}) {
        GptqSettings settings = make_settings(3, group_size, sym);
        settings.desc_act = desc_act;
        const Problem problem(40, 72, 1);
        const SolvedWeight solved = problem.solve(settings, {24, 6, 0, 0});
        EXPECT_TRUE(follows_the_recursion(problem, problem.factored(settings, pool), solved.weight, pool))
            << "sym " << sym << " group_size " << group_size << " desc_act " << desc_act;
      }
    }
  }
}

TEST(FeedbackSolver, ReportsTheLossThatTheWeightHas) {
  for (const bool shifted : {false, true}) {
    for (const SolverSteps& steps :
         {kPlainGptq, solver_steps(Effort::kDefault), solver_steps(Effort::kBest)}) {
      Problem problem(50, 96, 2);
      problem.kill(11);
      if (shifted) {
        problem.shift = random_matrix(50, 96, 3);
        for (float& v : problem.shift.values) v *= 1e-3f;
      }
      const SolvedWeight solved = problem.solve(make_settings(4, 32, false), steps);
      EXPECT_NEAR(solved.loss / problem.loss(solved.weight), 1, 2e-3)
          << "shifted " << shifted << " " << steps.group_sweeps;
    }
  }
}

TEST(FeedbackSolver, EveryStepLowersTheLossOnCorrelatedInputs) {
  for (const int bits : {2, 3, 4}) {
    for (const bool sym : {false, true}) {
      const Problem problem(96, 256, 4);
      GptqSettings settings = make_settings(bits, 64, sym);
      const double gptq = problem.solve(settings, kPlainGptq).loss;
      const double cheap = problem.solve(settings, {24, 1, 0, 0}).loss;
      const double simulated = problem.solve(settings, {24, 6, 0, 0}).loss;
      const double fast = problem.solve(settings, solver_steps(Effort::kFast)).loss;
      const double best = problem.solve(settings, solver_steps(Effort::kBest)).loss;
      EXPECT_LT(cheap, gptq) << bits << sym;
      EXPECT_LT(simulated, cheap) << bits << sym;
      EXPECT_LT(fast, simulated) << bits << sym;
      EXPECT_LT(best, fast) << bits << sym;
      EXPECT_LT(fast, 0.85 * gptq) << bits << sym;
      if (!sym) continue;
      settings.signed_scales = true;
      EXPECT_LT(problem.solve(settings, solver_steps(Effort::kFast)).loss, fast) << bits;
    }
  }
}

// In the damped metric, in which they work: undamped it may rise a little.
TEST(FeedbackSolver, RefinementNeverRaisesTheLoss) {
  for (unsigned seed = 0; seed < 8; ++seed) {
    const Problem problem(20, 80, 20 + seed);
    GptqSettings settings = make_settings(static_cast<int>(2 + seed % 3 + 4 * (seed % 4 == 3)), 24, seed % 2);
    settings.signed_scales = seed > 4;
    double last = std::numeric_limits<double>::infinity();
    for (const SolverSteps& steps :
         {SolverSteps{4, 2, 0, 0}, SolverSteps{4, 2, 1, 0}, SolverSteps{4, 2, 2, 0}, SolverSteps{4, 2, 4, 0},
          SolverSteps{4, 2, 4, 1}, SolverSteps{4, 2, 4, 2}, SolverSteps{4, 2, 4, 3}}) {
      const double loss = problem.loss(problem.solve(settings, steps).weight, problem.damping());
      EXPECT_LE(loss, last * (1 + 1e-6)) << seed << ": " << steps.refine_rounds << ", " << steps.group_sweeps;
      last = loss;
    }
  }
}

TEST(FeedbackSolver, FitsEveryShapeOfGroups) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool sym : {false, true}) {
      for (const size_t group_size : {size_t{32}, size_t{40}, size_t{7}, size_t{0}, size_t{500}}) {
        for (const bool desc_act : {false, true}) {
          const Problem problem(17, 100, 5);
          GptqSettings settings = make_settings(bits, group_size, sym);
          settings.desc_act = desc_act;
          const SolvedWeight solved = problem.solve(settings, {8, 3, 1, 1});
          const std::string what = std::to_string(bits) + " bits, groups of " + std::to_string(group_size) +
                                   (sym ? " sym" : "") + (desc_act ? " desc_act" : "");
          expect_well_formed(solved, settings, what);
          EXPECT_EQ(solved.weight.g_idx.empty(), !desc_act) << what;
          EXPECT_NEAR(solved.loss / problem.loss(solved.weight), 1, 5e-3) << what;
          EXPECT_LT(solved.loss, std::pow(4.0, 1 - bits) * 3) << what;
        }
      }
    }
  }
}

TEST(FeedbackSolver, GivesTheSameBytesForAnyNumberOfThreads) {
  Problem problem(150, 96, 6);
  problem.shift = random_matrix(150, 96, 7);
  for (float& v : problem.shift.values) v *= 1e-3f;
  const GptqSettings settings = make_settings(3, 32, false);
  const SolvedWeight expected = problem.solve(settings, solver_steps(Effort::kBest), 1);
  for (const size_t threads : {size_t{2}, size_t{3}, size_t{7}}) {  // 7: blocks of fewer rows
    const SolvedWeight solved = problem.solve(settings, solver_steps(Effort::kBest), threads);
    EXPECT_EQ(solved.weight.codes, expected.weight.codes) << threads;
    EXPECT_EQ(solved.weight.scales, expected.weight.scales) << threads;
    EXPECT_EQ(solved.weight.zeros, expected.weight.zeros) << threads;
    EXPECT_EQ(solved.loss, expected.loss) << threads;
  }
}

TEST(FeedbackSolver, EveryCpuTargetFindsAsGoodAWeight) {
  const Problem problem(70, 128, 8);
  for (const bool sym : {false, true}) {
    const GptqSettings settings = make_settings(4, 32, sym);
    for (const SolverSteps& steps : {kPlainGptq, solver_steps(Effort::kBest)}) {
      const SolvedWeight scalar = problem.solve(settings, steps, 2, CpuTarget::kScalar);
      for (const CpuTarget target : supported_cpu_targets()) {
        const SolvedWeight solved = problem.solve(settings, steps, 2, target);
        EXPECT_NEAR(solved.loss / scalar.loss, 1, 0.02) << cpu_target_name(target);
        EXPECT_NEAR(solved.loss / problem.loss(solved.weight), 1, 2e-3) << cpu_target_name(target);
        size_t same = 0;
        for (size_t i = 0; i < scalar.weight.codes.size(); ++i) {
          same += solved.weight.codes[i] == scalar.weight.codes[i];
        }
        EXPECT_GT(static_cast<double>(same), 0.97 * static_cast<double>(scalar.weight.codes.size()))
            << cpu_target_name(target);
      }
    }
  }
}

TEST(FeedbackSolver, AShiftOfZerosChangesNothing) {
  Problem problem(30, 64, 9);
  const GptqSettings settings = make_settings(4, 16, true);
  const SolvedWeight plain = problem.solve(settings, solver_steps(Effort::kDefault));
  problem.shift = TestMatrix(30, 64);
  const SolvedWeight shifted = problem.solve(settings, solver_steps(Effort::kDefault));
  EXPECT_EQ(shifted.weight.codes, plain.weight.codes);
  EXPECT_EQ(shifted.weight.scales, plain.weight.scales);
  EXPECT_NEAR(shifted.loss, plain.loss, 1e-9 + 1e-4 * plain.loss);
}

// D = (V - W) Hd makes V the target: the solution has to be the one for V itself.
TEST(FeedbackSolver, AShiftMovesTheTarget) {
  Problem problem(30, 64, 10);
  Problem wanted = problem;
  const TestMatrix change = random_matrix(30, 64, 11);
  problem.shift = TestMatrix(30, 64);
  for (size_t o = 0; o < 30; ++o) {
    for (size_t i = 0; i < 64; ++i) {
      wanted.weight.at(o, i) += 0.01f * change.at(o, i);
      double sum = 0.01 * problem.damping() * double{change.at(o, i)};
      for (size_t j = 0; j < 64; ++j) sum += 0.01 * double{change.at(o, j)} * double{problem.gram.at(j, i)};
      problem.shift.at(o, i) = static_cast<float>(sum);
    }
  }
  const GptqSettings settings = make_settings(4, 16, false);
  const SolvedWeight solved = problem.solve(settings, solver_steps(Effort::kDefault));
  const SolvedWeight direct = wanted.solve(settings, solver_steps(Effort::kDefault));
  EXPECT_NEAR(wanted.loss(solved.weight) / direct.loss, 1, 0.02);
  EXPECT_GT(problem.loss(solved.weight), 2 * direct.loss);
}

TEST(FeedbackSolver, ALargeShiftIsHalvedUntilItIsSmallerThanTheWeight) {
  for (const float size : {1.f, 1e6f, 1e18f, 1e30f}) {
    Problem problem(30, 64, 12);
    problem.shift = random_matrix(30, 64, 13);
    for (float& v : problem.shift.values) v *= size;
    const SolvedWeight solved = problem.solve(make_settings(4, 16, false), solver_steps(Effort::kDefault));
    EXPECT_TRUE(std::isfinite(solved.loss)) << size;
    // The shift itself is at most a quarter, the rounding to four bits adds little.
    EXPECT_LT(problem.loss(solved.weight, problem.damping()), 0.3) << size;
  }
}

TEST(FeedbackSolver, WeightsOfDeadInputsBecomeZero) {
  Problem problem(20, 48, 14);
  problem.kill(5);
  problem.kill(30);
  for (size_t o = 0; o < 20; ++o) problem.weight.at(o, 5) = 100.f;  // would spoil its group's grid
  for (const bool desc_act : {false, true}) {
    GptqSettings settings = make_settings(4, 16, false);
    settings.desc_act = desc_act;
    const SolvedWeight solved = problem.solve(settings, solver_steps(Effort::kBest));
    const QuantizedWeight& w = solved.weight;
    for (const size_t input : {size_t{5}, size_t{30}}) {
      for (size_t o = 0; o < 20; ++o) {
        EXPECT_EQ(static_cast<float>(w.codes[o * 48 + input]), w.zeros[w.group_of(input) * 20 + o]);
      }
    }
    EXPECT_LT(solved.loss, 0.01);
  }
}

TEST(FeedbackSolver, RowsAndGroupsOfZerosStayZero) {
  for (const bool sym : {false, true}) {
    Problem problem(20, 48, 15);
    for (size_t i = 0; i < 48; ++i) problem.weight.at(7, i) = 0.f;
    for (size_t o = 0; o < 20; ++o) {
      for (size_t i = 16; i < 32; ++i) problem.weight.at(o, i) = 0.f;
    }
    const GptqSettings settings = make_settings(4, 16, sym);
    const SolvedWeight solved = problem.solve(settings, solver_steps(Effort::kBest));
    expect_well_formed(solved, settings, "zeros");
    for (size_t i = 0; i < 48; ++i) {
      EXPECT_EQ(static_cast<float>(solved.weight.codes[7 * 48 + i]), solved.weight.zeros[i / 16 * 20 + 7]);
    }
    EXPECT_TRUE(std::isfinite(solved.loss));
    std::fill(problem.weight.values.begin(), problem.weight.values.end(), 0.f);
    EXPECT_EQ(problem.solve(settings, solver_steps(Effort::kBest)).loss, 0.0);
  }
}

TEST(FeedbackSolver, SurvivesWeightsAtTheEndsOfFloat16) {
  for (const float size : {1e-30f, 1e-7f, 1e-5f, 1e4f, 1e6f, 1e12f}) {
    for (const bool sym : {false, true}) {
      Problem problem(20, 48, 16);
      for (float& v : problem.weight.values) v *= size;
      const GptqSettings settings = make_settings(4, 16, sym);
      const SolvedWeight solved = problem.solve(settings, solver_steps(Effort::kBest));
      expect_well_formed(solved, settings, std::to_string(size));
      EXPECT_TRUE(std::isfinite(solved.loss)) << size;
      if (size == 1e4f || size == 1e-5f) {
        EXPECT_LT(solved.loss, size == 1e4f ? 0.05 : 0.5) << size;
      }
    }
  }
}

TEST(FeedbackSolver, AvoidsZeroPointsThatTheLayoutCannotStore) {
  Problem problem(20, 48, 17);
  for (float& v : problem.weight.values) v = std::fabs(v);  // wants zero point 0
  for (const int bits : {2, 4}) {
    GptqSettings settings = make_settings(bits, 16, false);
    const SolvedWeight free = problem.solve(settings, solver_steps(Effort::kBest));
    EXPECT_EQ(*std::min_element(free.weight.zeros.begin(), free.weight.zeros.end()), 0.f);
    settings.zero_may_be_0 = false;
    expect_well_formed(problem.solve(settings, solver_steps(Effort::kBest)), settings, "no zero 0");
  }
}

TEST(FeedbackSolver, RefusesArgumentsThatDoNotFit) {
  ThreadPool pool(1);
  Problem problem(8, 32, 18);
  const GptqSettings settings = make_settings(4, 8, false);
  const SolverSteps steps = solver_steps(Effort::kFast);
  const FactoredHessian hessian = problem.factored(settings, pool);
  const auto code_of = [&](MatrixView<const float> weight, MatrixView<const float> shift,
                           const GptqSettings& asked) {
    const auto solved = solve_with_feedback(weight, shift, hessian, asked, steps, pool);
    return solved ? "solved" : solved.error().what;
  };
  EXPECT_EQ(code_of(problem.weight.view(), {}, settings), "solved");
  EXPECT_NE(code_of(problem.weight.view(), {}, make_settings(9, 8, false)), "solved");
  EXPECT_NE(code_of(problem.weight.view().cols(0, 16), {}, settings), "solved");
  EXPECT_NE(code_of(problem.weight.view(), problem.weight.view().rows(0, 4), settings), "solved");
  EXPECT_NE(code_of(problem.weight.view(), {}, make_settings(4, 12, false)), "solved") << "other groups";
  problem.weight.at(3, 3) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(code_of(problem.weight.view(), {}, settings), "solved");
}

}  // namespace
}  // namespace nibble
