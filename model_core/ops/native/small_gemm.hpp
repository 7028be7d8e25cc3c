// Products of a matrix of tokens and a small matrix, on one thread: lanes run over the columns.
//
//   out[i][j] (+)= sum over k of x[i][k] w[k][j],  i < rows, k < depth, j < W * vectors
//
// x may be read transposed (strides), so the same loop gives the gradient of the weights.
#pragma once

#include <algorithm>

#include "lanes.hpp"

namespace gemm {

using lanes::vec;
using lanes::W;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 6, VECTORS = 4;  // 24 sums in 32 registers
#else
constexpr int ROWS = 4, VECTORS = 2;
#endif

struct Left {  // x
  const float* data;
  int64_t row, step;  // element (i, k) stands at i * row + k * step
};
struct Right {  // w, and likewise the result; vectors of columns are contiguous
  const float* data;
  int64_t row;
};
struct Result {
  float* data;
  int64_t row;
  bool add;
};

template <int R, int V>
inline void tile(const Left& x, const Right& w, const Result& out, int64_t depth) {
  vec sum[R][V] = {};
  for (int64_t k = 0; k < depth; ++k) {
    const float* right = w.data + k * w.row;
    const float* left = x.data + k * x.step;
    vec column[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) column[v] = lanes::load(right + v * W);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const vec value = lanes::splat(left[r * x.row]);
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) sum[r][v] += value * column[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      float* to = out.data + r * out.row + v * W;
      lanes::store(to, out.add ? lanes::load(to) + sum[r][v] : sum[r][v]);
    }
}

template <int R, int V>
inline void columns(const Left& x, const Right& w, const Result& out, int64_t depth, int64_t vectors) {
  int64_t v = 0;
  for (; v + V <= vectors; v += V)
    tile<R, V>(x, {w.data + v * W, w.row}, {out.data + v * W, out.row, out.add}, depth);
  if constexpr (V > 1)
    if (v < vectors)
      columns<R, V - 1>(x, {w.data + v * W, w.row}, {out.data + v * W, out.row, out.add}, depth,
                        vectors - v);
}

inline void multiply(Left x, Right w, Result out, int64_t rows, int64_t depth, int64_t vectors) {
  int64_t i = 0;
  auto at = [&](int64_t r) { return Left{x.data + r * x.row, x.row, x.step}; };
  auto to = [&](int64_t r) { return Result{out.data + r * out.row, out.row, out.add}; };
  for (; i + ROWS <= rows; i += ROWS) columns<ROWS, VECTORS>(at(i), w, to(i), depth, vectors);
  for (; i < rows; ++i) columns<1, VECTORS>(at(i), w, to(i), depth, vectors);
}

}  // namespace gemm
