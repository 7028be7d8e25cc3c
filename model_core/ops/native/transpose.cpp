// Transposes matrices, so that tensors with neighbouring tokens can meet kernels that want
// neighbouring channels:  to[b][c][r] = from[b][r][c].
//
// W rows by W columns at a time pass through registers: log2(W) rounds of interleaving the first
// half of the vectors with the second half leave exactly the transpose. A task takes a run along
// the longer side, short enough for its part of both matrices to stay in the second-level cache;
// within it tiles follow the run, so lines that are read and written in part stay near.
#include <algorithm>
#include <cstdint>
#include <utility>

#include "lanes.hpp"
#include "pool.hpp"

namespace {

using lanes::vec;
using lanes::W;
constexpr int64_t RUN = 256;  // a multiple of every W

extern "C" struct TransposeArguments {
  int64_t batch, rows, columns;        // of `from`
  const float* from;                   // element (b, r, c) at b * from_batch + r * from_row + c
  int64_t from_batch, from_row;
  float* to;                           // element (b, c, r) at b * to_batch + c * to_row + r
  int64_t to_batch, to_row, threads;
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Lanes FIRST, FIRST + 1, ... of both vectors, by turns: a, b, a, b, ...
template <int FIRST, int... I>
vec interleave(vec a, vec b, std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (FIRST + I / 2 + I % 2 * W)...);
#else
  return __builtin_shuffle(a, b, lanes::ivec{(FIRST + I / 2 + I % 2 * W)...});
#endif
}

inline void transpose_registers(vec* v) {
  using all = std::make_integer_sequence<int, W>;
  for (int round = 1; round < W; round *= 2) {
    vec next[W];
    for (int i = 0; i < W / 2; ++i) {
      next[2 * i] = interleave<0>(v[i], v[i + W / 2], all{});
      next[2 * i + 1] = interleave<W / 2>(v[i], v[i + W / 2], all{});
    }
    for (int i = 0; i < W; ++i) v[i] = next[i];
  }
}

struct Matrices {  // one batch item
  const float* from;
  int64_t from_row;
  float* to;
  int64_t to_row;

  void tile(int64_t r, int64_t c, int64_t rows, int64_t columns) const {
    const float* source = from + r * from_row + c;
    float* target = to + c * to_row + r;
    if (rows < W || columns < W) {
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j) target[j * to_row + i] = source[i * from_row + j];
      return;
    }
    vec v[W];
    for (int i = 0; i < W; ++i) v[i] = lanes::load(source + i * from_row);
    transpose_registers(v);
    for (int i = 0; i < W; ++i) lanes::store(target + i * to_row, v[i]);
  }

  // Tiles of a region, those along the longer side of the whole matrix next to each other.
  void region(int64_t r0, int64_t r1, int64_t c0, int64_t c1, bool along_columns) const {
    const auto at = [&](int64_t r, int64_t c) {
      tile(r, c, std::min<int64_t>(W, r1 - r), std::min<int64_t>(W, c1 - c));
    };
    if (along_columns) {
      for (int64_t r = r0; r < r1; r += W)
        for (int64_t c = c0; c < c1; c += W) at(r, c);
    } else {
      for (int64_t c = c0; c < c1; c += W)
        for (int64_t r = r0; r < r1; r += W) at(r, c);
    }
  }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int segmamba_transpose(
    const TransposeArguments* a) {
  if (a->batch < 0 || a->rows < 0 || a->columns < 0) return 1;
  const bool along_columns = a->columns >= a->rows;
  const int64_t length = along_columns ? a->columns : a->rows;
  const int64_t runs = ceil_div(length, RUN);
  try {
    pool::run(a->threads, a->batch * runs, [&](int64_t task) {
      const int64_t b = task / runs, first = task % runs * RUN;
      const int64_t last = std::min(length, first + RUN);
      const Matrices m{a->from + b * a->from_batch, a->from_row, a->to + b * a->to_batch,
                       a->to_row};
      if (along_columns) m.region(0, a->rows, first, last, true);
      else m.region(first, last, 0, a->columns, false);
    });
  } catch (const std::bad_alloc&) {
    return 2;
  }
  return 0;
}
