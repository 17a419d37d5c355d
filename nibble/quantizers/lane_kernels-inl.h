// The functions of lane_kernels.h, compiled once per instruction set.

namespace nibble::kernels::NIBBLE_NAMESPACE {

// A register tile is kTileColumns columns of kTileColumns * V vectors: with three vectors 24
// accumulators of the 32 registers of AVX-512, 12 of the 16 of AVX2.
inline constexpr size_t kTileColumns = kLanes == 16 ? 8 : 4;
// Columns of x that stay in the first-level cache while a strip of panels passes over them.
inline constexpr size_t kDepth = 128;

template <size_t V>
NIBBLE_INLINE void tile_add(const float* m, const float* x, size_t depth, size_t stride,
                            F32 (&sums)[kTileColumns][V]) {
  for (size_t i = 0; i < depth; ++i) {
    F32 values[V];
    NIBBLE_UNROLL
    for (size_t v = 0; v < V; ++v) values[v] = load(x + i * stride + v * kLanes);
    NIBBLE_UNROLL
    for (size_t c = 0; c < kTileColumns; ++c) {
      const F32 factor = set1(m[i * kPanel + c]);
      NIBBLE_UNROLL
      for (size_t v = 0; v < V; ++v) sums[c][v] = fmadd(factor, values[v], sums[c][v]);
    }
  }
}

template <size_t V>
NIBBLE_INLINE void load_tile(const float* t, size_t stride, F32 (&sums)[kTileColumns][V]) {
  NIBBLE_UNROLL
  for (size_t c = 0; c < kTileColumns; ++c) {
    NIBBLE_UNROLL
    for (size_t v = 0; v < V; ++v) sums[c][v] = load(t + c * stride + v * kLanes);
  }
}

template <size_t V>
inline void accumulate_lanes(const Panels& matrix, size_t from, size_t to, size_t begin, size_t end,
                             const float* x, size_t stride, float* t) {
  for (size_t depth = from; depth < to; depth += kDepth) {
    const size_t depth_end = depth + kDepth < to ? depth + kDepth : to;
    for (size_t j = begin; j < end; j += kTileColumns) {
      F32 sums[kTileColumns][V];
      float* const out = t + (j - begin) * stride;
      load_tile<V>(out, stride, sums);
      tile_add<V>(matrix.panel(j / kPanel) + depth * kPanel + j % kPanel, x + depth * stride,
                  depth_end - depth, stride, sums);
      NIBBLE_UNROLL
      for (size_t c = 0; c < kTileColumns; ++c) {
        NIBBLE_UNROLL
        for (size_t v = 0; v < V; ++v) store(out + c * stride + v * kLanes, sums[c][v]);
      }
    }
  }
}

// The walk of a Sweep. step(j, v, t) does what is to be done with column j, vector v, and returns what
// is fed to later columns, having stored it in `fed`.
template <size_t V, class Step>
NIBBLE_INLINE void walk_columns(const Sweep& sweep, size_t lane, const float* fed, Step& step) {
  const size_t stride = sweep.lanes;
  for (size_t j = sweep.begin; j < sweep.end; j += kTileColumns) {
    const float* const m = sweep.matrix.panel(j / kPanel) + j % kPanel;
    F32 sums[kTileColumns][V];
    load_tile<V>(sweep.initial + (j - sweep.begin) * stride + lane, stride, sums);
    tile_add<V>(m + sweep.begin * kPanel, fed + lane, j - sweep.begin, stride, sums);
    NIBBLE_UNROLL
    for (size_t c = 0; c < kTileColumns; ++c) {
      const float* const row = m + (j + c) * kPanel;
      NIBBLE_UNROLL
      for (size_t v = 0; v < V; ++v) {
        const F32 value = step(j - sweep.begin + c, v, sums[c][v]);
        NIBBLE_UNROLL
        for (size_t later = c + 1; later < kTileColumns; ++later) {
          sums[later][v] = fmadd(set1(row[later]), value, sums[later][v]);
        }
      }
    }
  }
}

// Calls Step::run<V>(args, lane) for all lanes, with as many vectors at once as there are registers for.
template <class Step, class Args>
NIBBLE_INLINE void for_each_vectors(const Args& args, size_t lanes) {
  if constexpr (kLanes == 1) {
    for (size_t lane = 0; lane < lanes; lane += 4) Step::template run<4>(args, lane);
  } else {
    const size_t vectors = lanes / kLanes;
    size_t lane = 0;
    if (vectors % 3 == 0) {
      for (; lane < lanes; lane += 3 * kLanes) Step::template run<3>(args, lane);
    } else {
      for (; lane + 2 * kLanes <= lanes; lane += 2 * kLanes) Step::template run<2>(args, lane);
      for (; lane < lanes; lane += kLanes) Step::template run<1>(args, lane);
    }
  }
}

template <size_t V>
NIBBLE_INLINE void load_vectors(const float* p, F32 (&out)[V]) {
  NIBBLE_UNROLL
  for (size_t v = 0; v < V; ++v) out[v] = load(p + v * kLanes);
}

template <size_t V>
struct FeedbackStep {
  const Feedback& args;
  size_t lane;
  F32 scale[V], inverse[V], low[V], high[V], loss[V];

  NIBBLE_INLINE F32 operator()(size_t j, size_t v, F32 t) {
    const size_t at = j * args.sweep.lanes + lane + v * kLanes;
    const F32 code = min(max(round(mul(t, inverse[v])), low[v]), high[v]);
    const F32 weight = mul(scale[v], code);  // exact: 11 bits times at most 9
    const F32 miss = sub(t, weight);
    loss[v] = fmadd(mul(miss, miss), set1(args.weight[j]), loss[v]);
    const F32 error = sub(load(args.target + at), weight);
    store(args.error + at, error);
    store(args.code + at, code);
    return error;
  }
};

struct RunFeedback {
  template <size_t V>
  static void run(const Feedback& args, size_t lane) {
    FeedbackStep<V> step{args, lane, {}, {}, {}, {}, {}};
    load_vectors<V>(args.grid.scale + lane, step.scale);
    load_vectors<V>(args.grid.inverse + lane, step.inverse);
    load_vectors<V>(args.grid.low + lane, step.low);
    load_vectors<V>(args.grid.high + lane, step.high);
    for (size_t v = 0; v < V; ++v) step.loss[v] = set1(0.f);
    walk_columns<V>(args.sweep, lane, args.error, step);
    for (size_t v = 0; v < V; ++v) store(args.loss + lane + v * kLanes, step.loss[v]);
  }
};

template <size_t V>
struct DescentStep {
  const Descent& args;
  size_t lane;
  F32 scale[V], inverse[V], low[V], high[V], change[V];

  NIBBLE_INLINE F32 operator()(size_t j, size_t v, F32 t) {
    const size_t at = j * args.sweep.lanes + lane + v * kLanes;
    const float diagonal = args.diagonal[j];
    const F32 old_code = load(args.code + at);
    const F32 best = fmadd(t, set1(1.f / diagonal), mul(scale[v], old_code));
    const F32 code = min(max(round(mul(best, inverse[v])), low[v]), high[v]);
    const F32 moved = mul(scale[v], sub(code, old_code));
    // Of (error - moved e_j) H (error - moved e_j)ᵀ, where t = (error H)_j.
    change[v] = fmadd(moved, fmadd(moved, set1(diagonal), mul(set1(-2.f), t)), change[v]);
    store(args.code + at, code);
    store(args.error + at, sub(load(args.target + at), mul(scale[v], code)));
    const F32 fed = sub(set1(0.f), moved);
    store(args.moved + at, fed);
    return fed;
  }
};

struct RunDescent {
  template <size_t V>
  static void run(const Descent& args, size_t lane) {
    DescentStep<V> step{args, lane, {}, {}, {}, {}, {}};
    load_vectors<V>(args.grid.scale + lane, step.scale);
    load_vectors<V>(args.grid.inverse + lane, step.inverse);
    load_vectors<V>(args.grid.low + lane, step.low);
    load_vectors<V>(args.grid.high + lane, step.high);
    for (size_t v = 0; v < V; ++v) step.change[v] = set1(0.f);
    walk_columns<V>(args.sweep, lane, args.moved, step);
    for (size_t v = 0; v < V; ++v) store(args.change + lane + v * kLanes, step.change[v]);
  }
};

struct SolveArgs {
  const Sweep& sweep;
  float* solved;
};

struct SolveStep {
  const SolveArgs& args;
  size_t lane;

  NIBBLE_INLINE F32 operator()(size_t j, size_t v, F32 t) {
    const F32 value = sub(set1(0.f), t);
    store(args.solved + j * args.sweep.lanes + lane + v * kLanes, value);
    return value;
  }
};

struct RunSolve {
  template <size_t V>
  static void run(const SolveArgs& args, size_t lane) {
    SolveStep step{args, lane};
    walk_columns<V>(args.sweep, lane, args.solved, step);
  }
};

struct NormArgs {
  const Sweep& sweep;
  const float* x;
  const float* weight;
  float* norm;
};

template <size_t V>
struct NormStep {
  const NormArgs& args;
  size_t lane;
  F32 norm[V];

  NIBBLE_INLINE F32 operator()(size_t j, size_t v, F32 t) {
    norm[v] = fmadd(mul(t, t), set1(args.weight[j]), norm[v]);
    return load(args.x + j * args.sweep.lanes + lane + v * kLanes);
  }
};

struct RunNorm {
  template <size_t V>
  static void run(const NormArgs& args, size_t lane) {
    NormStep<V> step{args, lane, {}};
    load_vectors<V>(args.norm + lane, step.norm);
    walk_columns<V>(args.sweep, lane, args.x, step);
    for (size_t v = 0; v < V; ++v) store(args.norm + lane + v * kLanes, step.norm[v]);
  }
};

struct AccumulateArgs {
  const Panels& matrix;
  size_t from, to, begin, end;
  const float* x;
  size_t lanes;
  float* t;
};

struct RunAccumulate {
  template <size_t V>
  static void run(const AccumulateArgs& a, size_t lane) {
    accumulate_lanes<V>(a.matrix, a.from, a.to, a.begin, a.end, a.x + lane, a.lanes, a.t + lane);
  }
};

inline void lane_accumulate(const Panels& matrix, size_t from, size_t to, size_t begin, size_t end,
                            const float* x, size_t lanes, float* t) {
  for_each_vectors<RunAccumulate>(AccumulateArgs{matrix, from, to, begin, end, x, lanes, t}, lanes);
}

inline void lane_feed_back(const Feedback& feedback) {
  for_each_vectors<RunFeedback>(feedback, feedback.sweep.lanes);
}

inline void lane_descend(const Descent& descent) {
  for_each_vectors<RunDescent>(descent, descent.sweep.lanes);
}

inline void lane_solve_negated(const Sweep& sweep, float* solved) {
  for_each_vectors<RunSolve>(SolveArgs{sweep, solved}, sweep.lanes);
}

inline void lane_weighted_norm(const Sweep& sweep, const float* x, const float* weight, float* norm) {
  for_each_vectors<RunNorm>(NormArgs{sweep, x, weight, norm}, sweep.lanes);
}

inline void lane_dot(const float* a, const float* b, size_t count, size_t lanes, float* sums) {
  for (size_t lane = 0; lane < lanes; lane += kLanes) {
    F32 sum = set1(0.f);
    for (size_t j = 0; j < count; ++j) {
      sum = fmadd(load(a + j * lanes + lane), load(b + j * lanes + lane), sum);
    }
    store(sums + lane, sum);
  }
}

// One scale with Z zeros: the quotient and its rounding are shared.
template <size_t Z>
NIBBLE_INLINE void score_scale(const float* t, const float* weight, size_t count, size_t lanes, F32 scale,
                               const float* zero_points, float max_code, float* scores) {
  const F32 inverse = div(set1(1.f), scale);
  const F32 negated = sub(set1(0.f), scale);
  F32 low[Z], high[Z], sum[Z];
  NIBBLE_UNROLL
  for (size_t z = 0; z < Z; ++z) {
    const F32 zero = load(zero_points + z * lanes);
    low[z] = sub(set1(0.f), zero);
    high[z] = sub(set1(max_code), zero);
    sum[z] = set1(0.f);
  }
  for (size_t j = 0; j < count; ++j) {
    const F32 value = load(t + j * lanes);
    const F32 nearest = round(mul(value, inverse));
    const F32 w = set1(weight[j]);
    NIBBLE_UNROLL
    for (size_t z = 0; z < Z; ++z) {
      const F32 miss = fmadd(min(max(nearest, low[z]), high[z]), negated, value);
      sum[z] = fmadd(mul(miss, miss), w, sum[z]);
    }
  }
  NIBBLE_UNROLL
  for (size_t z = 0; z < Z; ++z) store(scores + z * lanes, sum[z]);
}

inline void lane_score_grids(const float* t, const float* weight, size_t count, size_t lanes,
                             const float* scales, const float* zero_points, size_t candidates, size_t zeros,
                             float max_code, float* scores) {
  for (size_t c = 0; c < candidates; ++c) {
    for (size_t lane = 0; lane < lanes; lane += kLanes) {
      const F32 scale = load(scales + c * lanes + lane);
      const float* const zero = zero_points + c * zeros * lanes + lane;
      float* const score = scores + c * zeros * lanes + lane;
      if (zeros == 3) {
        score_scale<3>(t + lane, weight, count, lanes, scale, zero, max_code, score);
        continue;
      }
      for (size_t z = 0; z < zeros; ++z) {
        score_scale<1>(t + lane, weight, count, lanes, scale, zero + z * lanes, max_code, score + z * lanes);
      }
    }
  }
}

inline LaneKernels lane_kernel_table() {
  return {&lane_accumulate,    &lane_feed_back, &lane_descend,    &lane_solve_negated,
          &lane_weighted_norm, &lane_dot,       &lane_score_grids};
}

}  // namespace nibble::kernels::NIBBLE_NAMESPACE
