// What the fused Mamba operation's two directions of work share: its arguments, its weights laid
// out for vectors, and the first half of its work, the mixing of tokens (convolution and x_proj).
#pragma once

#include <algorithm>
#include <new>
#include <vector>

#include "lanes.hpp"
#include "pool.hpp"
#include "scan_core.hpp"
#include "small_gemm.hpp"

namespace mamba {

using lanes::vec;
using lanes::W;
using scan::CHUNK;
using scan::Lane;
constexpr int MAX_WIDTH = 16;
constexpr int64_t SCRATCH = 65536;  // floats of a stretch per thread: well inside its cache

extern "C" struct MambaArguments {
  int64_t batch, length, channels, states, rank, width, directions, threads;
  const float* xz;                                  // (batch, length, 2 channels), dense
  const float *conv_weight, *conv_bias;             // (directions, channels[, width])
  const float *x_proj;                              // (directions, rank + 2 states, channels)
  const float *dt_proj, *dt_bias;                   // (directions, channels[, rank])
  const float *A, *D;                               // (directions, channels[, states])
  const int32_t* orders;                            // (directions, length) or null: as they lie
  float* out;                                       // (batch, length, channels)
  float* chunk_states;                              // (directions, batch, chunks, channels, states)
                                                    // or null: keep none
  // Backward only. Gradients are dense and shaped like their tensors; all are written.
  const float* dout;
  float *dxz, *dconv_weight, *dconv_bias, *dx_proj, *ddt_proj, *ddt_bias, *dA, *dD;
};

inline int64_t padded(int64_t n) { return scan::ceil_div(n, W) * W; }

// A (rows, columns) matrix, or its transpose, with rows padded by zeros to whole vectors.
inline std::vector<float> pad_rows(const float* from, int64_t rows, int64_t columns) {
  std::vector<float> to(rows * padded(columns));
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(from + i * columns, columns, to.data() + i * padded(columns));
  return to;
}
inline std::vector<float> pad_transposed(const float* from, int64_t rows, int64_t columns) {
  std::vector<float> to(columns * padded(rows));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to[j * padded(rows) + i] = from[i * columns + j];
  return to;
}

struct Sizes {
  int64_t channels, states, rank, width;
  int64_t mixed = rank + 2 * states;         // columns of x_proj's result: r, B, C
  int64_t row = padded(channels);            // floats from token to token in x'
  int64_t mixed_row = padded(mixed);         // and in (r | B | C)
  int64_t blocks = scan::ceil_div(channels, W);
};

struct Direction {  // the weights of one direction as the loops want them, padded to vectors
  std::vector<float> taps, conv_bias;        // (width, row), (row)
  std::vector<float> x_proj;                 // (channels, mixed_row)
  std::vector<float> dt_proj, dt_bias, skip; // (rank, row), (row), (row)
  std::vector<vec> rates;                    // (blocks, states): A log2(e)
  const int32_t* order;

  Direction(const MambaArguments& a, const Sizes& s, int64_t i)
      : taps(pad_transposed(a.conv_weight + i * s.channels * s.width, s.channels, s.width)),
        conv_bias(pad_rows(a.conv_bias + i * s.channels, 1, s.channels)),
        x_proj(pad_transposed(a.x_proj + i * s.mixed * s.channels, s.mixed, s.channels)),
        dt_proj(pad_transposed(a.dt_proj + i * s.channels * s.rank, s.channels, s.rank)),
        dt_bias(pad_rows(a.dt_bias + i * s.channels, 1, s.channels)),
        skip(pad_rows(a.D + i * s.channels, 1, s.channels)),
        rates(s.blocks * s.states),
        order(a.orders ? a.orders + i * a.length : nullptr) {
    for (int64_t k = 0; k < s.blocks; ++k)
      scan::read_rates(a.A + i * s.channels * s.states, scan::lane_of(k, s.channels), s.states,
                       lanes::LOG2E, &rates[k * s.states]);
  }
  int64_t at(int64_t t) const { return order ? order[t] : t; }
};

struct Stretch {  // some tokens of one direction of one batch item
  int64_t b, direction, first, last;
  int64_t tokens() const { return last - first; }
};

struct Mixed {  // x' and (r | B | C) of a stretch, one row a token
  std::vector<float> x, projections;
  Mixed(const Sizes& s, int64_t tokens) : x(tokens * s.row), projections(tokens * s.mixed_row) {}
};

// What forward and backward share: sizes, weights, and the first half of the work.
struct Inner {
  const MambaArguments& a;
  const Sizes s;
  const int64_t chunks = scan::ceil_div(a.length, CHUNK);
  std::vector<Direction> directions;
  const std::vector<float> nothing;  // the row before the first token

  explicit Inner(const MambaArguments& arguments)
      : a(arguments), s{a.channels, a.states, a.rank, a.width}, nothing(s.row) {
    for (int64_t i = 0; i < a.directions; ++i) directions.emplace_back(a, s, i);
  }

  const float* x_row(int64_t b, int64_t r) const {
    return a.xz + (b * a.length + r) * 2 * s.channels;
  }
  const float* z_row(int64_t b, int64_t r) const { return x_row(b, r) + s.channels; }
  float* out_row(int64_t b, int64_t r) const { return a.out + (b * a.length + r) * s.channels; }
  float* slab(int64_t direction, int64_t b, int64_t chunk) const {
    return a.chunk_states +
           ((direction * a.batch + b) * chunks + chunk) * s.channels * s.states;
  }

  // Tokens per stretch: about as many as the second-level caches hold, in whole chunks.
  int64_t reach() const {
    const int64_t fit = a.threads * SCRATCH / (s.row + s.mixed_row);
    return std::min(a.length, std::clamp<int64_t>(fit / CHUNK, 4, 128) * CHUNK);
  }

  // All stretches, in the order of their sequences.
  std::vector<Stretch> stretches() const {
    std::vector<Stretch> all;
    for (int64_t b = 0; b < a.batch; ++b)
      for (int64_t d = 0; d < a.directions; ++d)
        for (int64_t t = 0; t < a.length; t += reach())
          all.push_back({b, d, t, std::min(a.length, t + reach())});
    return all;
  }

  // Groups of neighbouring blocks, one a task; even shares where the blocks divide so.
  int64_t groups() const {
    return s.blocks % a.threads ? std::min(s.blocks, 4 * a.threads) : a.threads;
  }
  int64_t group_border(int64_t group) const { return s.blocks * group / groups(); }

  // Rows of x that the convolution of `tokens` tokens from `first` on reads.
  struct Window {
    const float* rows[CHUNK + MAX_WIDTH - 1];
    const float* ahead[CHUNK];  // what the next chunk will read: scan orders defeat the hardware
  };
  void find_window(const Stretch& at, int64_t first, int tokens, Window& window) const {
    const Direction& d = directions[at.direction];
    const int64_t before = s.width - 1;
    for (int64_t i = 0; i < before + tokens; ++i) {
      const int64_t t = first - before + i;
      window.rows[i] = t < 0 ? nothing.data() : x_row(at.b, d.at(t));
    }
    for (int t = 0; t < tokens; ++t)
      window.ahead[t] = x_row(at.b, d.at(std::min(first + t + CHUNK, a.length - 1)));
  }

  // The convolution before its activation, for one block of channels.
  template <int WIDTH, class Use>
  void convolve(const Direction& d, const Lane& lane, const Window& window, int tokens,
                Use use) const {
    const int64_t width = WIDTH ? WIDTH : s.width;
    vec taps[WIDTH ? WIDTH : MAX_WIDTH];
    for (int64_t k = 0; k < width; ++k) taps[k] = lanes::load(&d.taps[k * s.row + lane.d]);
    const vec bias = lanes::load(&d.conv_bias[lane.d]);
    for (int t = 0; t < tokens; ++t) {
      __builtin_prefetch(window.ahead[t] + lane.d);
      vec p = bias;
      for (int64_t k = 0; k < width; ++k) p += taps[k] * lane.get(window.rows[t + k]);
      use(t, p);
    }
  }
  template <class Use>
  void convolve(const Direction& d, const Lane& lane, const Window& window, int tokens,
                Use use) const {
    if (s.width == 4) convolve<4>(d, lane, window, tokens, use);
    else convolve<0>(d, lane, window, tokens, use);
  }

  // Mixes one chunk of a stretch.
  void mix(const Stretch& at, int64_t first, Mixed& mixed) const {
    const Direction& d = directions[at.direction];
    const int tokens = static_cast<int>(std::min<int64_t>(CHUNK, at.last - first));
    Window window;
    find_window(at, first, tokens, window);
    float* x = mixed.x.data() + (first - at.first) * s.row;
    for (int64_t k = 0; k < s.blocks; ++k) {
      const Lane lane = scan::lane_of(k, s.channels);
      convolve(d, lane, window, tokens,
               [&](int t, vec p) { lanes::store(x + t * s.row + lane.d, lanes::silu(p)); });
    }
    gemm::multiply({x, s.row, 1}, {d.x_proj.data(), s.mixed_row},
                   {mixed.projections.data() + (first - at.first) * s.mixed_row, s.mixed_row, false},
                   tokens, s.channels, s.mixed_row / W);
  }

  // The tokens of one chunk of a mixed stretch, as the scan reads them.
  struct Rows {
    int tokens;
    const float *x, *r;  // of the first token
    int64_t at[CHUNK];   // where they lie in xz and out,
    int64_t ahead[CHUNK];  // and the tokens of the next chunk
    scan::Projections p;
  };
  void find_rows(const Stretch& at, int64_t first, const Mixed& mixed, Rows& rows) const {
    rows.tokens = static_cast<int>(std::min<int64_t>(CHUNK, at.last - first));
    rows.x = mixed.x.data() + (first - at.first) * s.row;
    rows.r = mixed.projections.data() + (first - at.first) * s.mixed_row;
    for (int t = 0; t < rows.tokens; ++t) {
      rows.at[t] = directions[at.direction].at(first + t);
      rows.ahead[t] = directions[at.direction].at(std::min(first + t + CHUNK, a.length - 1));
      rows.p.B[t] = rows.r + t * s.mixed_row + s.rank;
      rows.p.C[t] = rows.p.B[t] + s.states;
    }
  }

  // dt_proj r + bias for the tokens of a chunk and one block of channels.
  void raw_steps(const Direction& d, int64_t block, const Rows& rows, vec* raw) const {
    const vec bias = lanes::load(&d.dt_bias[block * W]);
    const float* weight = d.dt_proj.data() + block * W;
    int t = 0;
    for (; t + 4 <= rows.tokens; t += 4) {
      const float* r = rows.r + t * s.mixed_row;
      vec one = bias, two = bias, three = bias, four = bias;
      for (int64_t k = 0; k < s.rank; ++k) {
        const vec w = lanes::load(weight + k * s.row);
        one += w * r[k];
        two += w * r[k + s.mixed_row];
        three += w * r[k + 2 * s.mixed_row];
        four += w * r[k + 3 * s.mixed_row];
      }
      raw[t] = one, raw[t + 1] = two, raw[t + 2] = three, raw[t + 3] = four;
    }
    for (; t < rows.tokens; ++t) {
      raw[t] = bias;
      for (int64_t k = 0; k < s.rank; ++k)
        raw[t] += lanes::load(weight + k * s.row) * rows.r[t * s.mixed_row + k];
    }
  }
};

inline bool valid(const MambaArguments& a) {
  return a.batch >= 0 && a.length >= 0 && a.channels > 0 && a.rank > 0 && a.directions > 0 &&
         a.states >= 1 && a.states <= scan::MAX_STATES && a.width >= 1 && a.width <= MAX_WIDTH &&
         a.threads >= 1;
}

// Runs `call` and turns what went wrong into a status: 1 bad arguments, 2 out of memory.
template <class Call>
int guarded(const MambaArguments& a, Call call) {
  if (!valid(a)) return 1;
  try {
    call();
  } catch (const std::bad_alloc&) {
    return 2;
  }
  return 0;
}

}  // namespace mamba
