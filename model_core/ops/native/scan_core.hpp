// The recurrence of the selective scan over one chunk of tokens and one block of channels, forward
// and backward. Both the scan and the fused Mamba operation are built from it.
//
//   h_t = exp(dt_t A) h_(t-1) + (dt_t u_t) B_t,   y_t = C_t . h_t        (arXiv 2312.00752, eq. 2a)
//
// W neighbouring channels fill one vector. States are taken in tiles whose h stays in registers.
#pragma once

#include <algorithm>
#include <type_traits>
#include <vector>

#include "lanes.hpp"

namespace scan {

using lanes::vec;
using lanes::W;
constexpr int CHUNK = 32;  // tokens between two kept states; their replay fits the first-level cache
constexpr int MAX_STATES = 256;
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int FORWARD_TILE = 16;  // of 32 registers
#else
constexpr int FORWARD_TILE = 8;
#endif
constexpr int BACKWARD_TILE = 4;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Lane {  // one block of at most W channels
  int64_t d;
  int count;
  vec get(const float* row) const { return lanes::load_some(row + d, count); }
  void put(float* row, vec v) const { lanes::store_some(row + d, v, count); }
};

inline Lane lane_of(int64_t block, int64_t channels) {
  return {block * W, static_cast<int>(std::min<int64_t>(W, channels - block * W))};
}

// Transposes the rows of a (channels, states) matrix into one vector per state.
inline void read_rates(const float* A, const Lane& lane, int64_t states, float factor, vec* out) {
  for (int64_t n = 0; n < states; ++n)
    for (int i = 0; i < W; ++i)
      out[n][i] = i < lane.count ? A[(lane.d + i) * states + n] * factor : 0.0f;
}
inline void write_rates(float* A, const Lane& lane, int64_t states, const vec* from) {
  for (int i = 0; i < lane.count; ++i)
    for (int64_t n = 0; n < states; ++n) A[(lane.d + i) * states + n] = from[n][i];
}

// The states of a block kept for the backward pass: `base` is that of a (channels, states) slab.
inline void keep_states(float* base, const Lane& lane, int64_t states, const vec* h) {
  float* to = base + lane.d * states;
  for (int64_t n = 0; n < states; ++n) lanes::store_some(to + n * lane.count, h[n], lane.count);
}
inline void recall_states(const float* base, const Lane& lane, int64_t states, vec* h) {
  const float* from = base + lane.d * states;
  for (int64_t n = 0; n < states; ++n) h[n] = lanes::load_some(from + n * lane.count, lane.count);
}

// Calls body(std::integral_constant<int, SIZE>, first) until tiles of at most TILE cover [0, n).
template <int TILE, class Body>
inline void tiles(int64_t n, Body body, int64_t first = 0) {
  for (; first + TILE <= n; first += TILE) body(std::integral_constant<int, TILE>{}, first);
  if constexpr (TILE > 1)
    if (first < n) tiles<TILE / 2>(n, body, first);
}

struct Projections {  // B and C of the tokens of a chunk
  const float *B[CHUNK], *C[CHUNK];
};

// Runs `tokens` tokens from `state`, which becomes the state after them, and adds C . h to y.
// `rates` is A log2(e).
template <bool OUTPUT>
inline void advance(const Projections& p, int tokens, int64_t states, const vec* dt,
                    const vec* input, const vec* rates, vec* state, vec* y) {
  tiles<FORWARD_TILE>(states, [&](auto size, int64_t first) {
    constexpr int N = decltype(size)::value;
    vec h[N];
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) h[n] = state[first + n];
    for (int t = 0; t < tokens; ++t) {
      const float *B = p.B[t] + first, *C = p.C[t] + first;
      const vec step = dt[t], in = input[t];
      vec even = OUTPUT ? y[t] : vec{}, odd{};
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        h[n] = lanes::exp2(step * rates[first + n]) * h[n] + in * B[n];
        if (OUTPUT) (n % 2 ? odd : even) += h[n] * C[n];
      }
      if (OUTPUT) y[t] = even + odd;
    }
#pragma GCC unroll 16
    for (int n = 0; n < N; ++n) state[first + n] = h[n];
  });
}

// What the sweep back over one chunk reads and adds to, per token of one block.
struct Sweep {
  vec dt[CHUNK], input[CHUNK], dy[CHUNK];
  vec y[CHUNK];           // C . h
  vec through_B[CHUNK];   // sum over n of dh B: the gradient of the input dt u
  vec through_A[CHUNK];   // sum over n of dh (dh / d dt, by the decay)
};

struct Replay {  // one tile of states: what the decay left of h, and the decay
  vec left[CHUNK * BACKWARD_TILE], decay[CHUNK * BACKWARD_TILE];
};

// Runs a tile of N states again from `state` and remembers what the way back needs.
template <int N>
inline void replay(const Projections& p, int tokens, int64_t first, const vec* rates,
                   const vec* state, Sweep& s, Replay& r) {
  vec h[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) h[n] = state[first + n];
  for (int t = 0; t < tokens; ++t) {
    const float *B = p.B[t] + first, *C = p.C[t] + first;
    const vec step = s.dt[t], in = s.input[t];
    vec y = s.y[t];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const vec decay = lanes::exp2(step * rates[first + n]);
      const vec left = decay * h[n];
      r.decay[t * N + n] = decay;
      r.left[t * N + n] = left;
      h[n] = left + in * B[n];
      y += h[n] * C[n];
    }
    s.y[t] = y;
  }
}

// Walks back over the replayed tile. dh is the gradient of the state after the chunk and becomes
// that of the state before it; dB and dC (tokens, N) and dA grow, lanes still apart.
template <int N>
inline void sweep_back(const Projections& p, int tokens, int64_t first, const vec* rates, Sweep& s,
                       const Replay& r, vec* dh_run, vec* dA_run, vec* dB, vec* dC) {
  vec carry[N], dA[N];
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    carry[n] = dh_run[first + n];
    dA[n] = dA_run[first + n];
  }
  for (int t = tokens - 1; t >= 0; --t) {
    const float *B = p.B[t] + first, *C = p.C[t] + first;
    const vec step = s.dt[t], in = s.input[t], dy = s.dy[t];
    vec through_B = s.through_B[t], through_A = s.through_A[t];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) {
      const vec left = r.left[t * N + n];
      const vec dh = carry[n] + dy * C[n];
      const vec slope = dh * left;
      dC[t * N + n] += dy * (left + in * B[n]);
      dB[t * N + n] += dh * in;
      through_B += dh * B[n];
      through_A += slope * rates[first + n];
      dA[n] += slope * step;
      carry[n] = dh * r.decay[t * N + n];
    }
    s.through_B[t] = through_B;
    s.through_A[t] = through_A;
  }
#pragma GCC unroll 8
  for (int n = 0; n < N; ++n) {
    dh_run[first + n] = carry[n];
    dA_run[first + n] = dA[n];
  }
}

// Adds the lane sums of a chunk's (CHUNK, N) vectors to as many floats, and clears the vectors.
template <int N>
inline void gather(std::vector<vec>& from, float* to) {
  for (int i = 0; i < CHUNK * N; i += W) {
    lanes::store(to + i, lanes::load(to + i) + lanes::sums(&from[i]));
    std::fill_n(&from[i], W, vec{});
  }
}

// How many parts to cut a sequence of `chunks` chunks into, so that `blocks` channel blocks keep
// `threads` threads busy. All parts but the last are run once more, from zero and without output
// (nine tenths of the work), to learn at which state the next one starts.
inline int64_t parts_for(int64_t blocks, int64_t chunks, int64_t threads) {
  int64_t best = 1;
  double least = 0.9 * static_cast<double>(ceil_div(blocks, threads));  // a gain must be worth it
  for (int64_t parts = 2; parts <= std::min<int64_t>({chunks, 2 * threads, 64}); ++parts) {
    const double rounds = 0.9 * ceil_div(blocks * (parts - 1), threads) +
                          1.0 * ceil_div(blocks * parts, threads);
    if (rounds / parts < least) {
      least = rounds / parts;
      best = parts;
    }
  }
  return best;
}

}  // namespace scan
