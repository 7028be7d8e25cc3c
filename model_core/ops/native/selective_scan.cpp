// Selective scan on the CPU, forward and backward.
//
//   h_t = exp(dt_t A) h_(t-1) + dt_t B_t u_t          (Mamba, arXiv 2312.00752, eq. 2a and Alg. 2)
//   y_t = C_t . h_t + D u_t,   out_t = y_t silu(z_t),   dt = softplus(delta + bias)
//
// Tensors are token-major: element (batch b, token t, channel d) lies at b * batch + t * row + d,
// so W neighbouring channels fill one vector and the N states of each stay in registers.
// `order`, when given, says at which row the t-th token of the sequence lies; no tensor is ever
// permuted. Tokens go in chunks; the state at the start of every chunk is kept, and the backward
// pass replays one chunk at a time from there, in reverse.
//
// Plain C interface, no Python or libtorch headers: one build serves every Python and torch
// version, and no second OpenMP runtime is linked beside torch's.
#include <algorithm>
#include <new>
#include <vector>

#include "lanes.hpp"
#include "pool.hpp"
#include "scan_core.hpp"

namespace {

using lanes::vec;
using lanes::W;
using scan::CHUNK;
using scan::Lane;
using scan::lane_of;

struct View {  // a float tensor with contiguous channels; strides in elements
  float* data;
  int64_t batch, row;
  float* at(int64_t b, int64_t r) const { return data + b * batch + r * row; }
};

extern "C" struct ScanArguments {
  int64_t batch, length, channels, states;
  View u, delta, z, B, C, out;                  // z.data may be null
  const float *A, *D, *bias;                    // (channels, states); D and bias may be null
  const int32_t* order;                         // (length) or null
  float* chunk_states;                          // (batch, chunks, channels, states), null: keep none
  int32_t softplus, threads;
  View dout, du, ddelta, dz, dB, dC;            // backward only; dB and dC are dense and zeroed
  float *dA, *dD, *dbias;                       // (batch, channels[, states])
};

struct Scan {
  const ScanArguments& a;
  const int64_t N = a.states;
  const int64_t chunks = scan::ceil_div(a.length, CHUNK);
  const int64_t blocks = scan::ceil_div(a.channels, W);

  int64_t row(int64_t t) const { return a.order ? a.order[t] : t; }
  int tokens_of(int64_t chunk) const {
    return static_cast<int>(std::min<int64_t>(CHUNK, a.length - chunk * CHUNK));
  }
  float* slab(int64_t b, int64_t chunk) const {
    return a.chunk_states + (b * chunks + chunk) * a.channels * N;
  }
  vec channel(const float* p, const Lane& lane) const { return p ? lane.get(p) : vec{}; }
  vec step_size(vec raw) const { return a.softplus ? lanes::softplus(raw) : raw; }

  // Groups of neighbouring blocks of one batch item: what one task works on.
  struct Group { int64_t b, first, last; };
  std::vector<Group> groups() const {
    const int64_t each = std::max<int64_t>(1, blocks * a.batch / std::max<int32_t>(1, a.threads));
    std::vector<Group> all;
    for (int64_t b = 0; b < a.batch; ++b) {
      const int64_t count = scan::ceil_div(blocks, each);
      for (int64_t i = 0; i < count; ++i)
        all.push_back({b, blocks * i / count, blocks * (i + 1) / count});
    }
    return all;
  }

  struct Rows {  // where the tokens of a chunk lie
    int tokens;
    int64_t at[CHUNK];
    scan::Projections p;
  };
  void find_rows(int64_t b, int64_t chunk, Rows& rows) const {
    rows.tokens = tokens_of(chunk);
    for (int t = 0; t < rows.tokens; ++t) {
      const int64_t r = rows.at[t] = row(chunk * CHUNK + t);
      rows.p.B[t] = a.B.at(b, r);
      rows.p.C[t] = a.C.at(b, r);
    }
  }

  struct State {  // of one block, from chunk to chunk
    std::vector<vec> rates, h;
    vec elapsed{};  // the sum of its steps so far
    State(const Scan& s, int64_t block) : rates(s.N), h(s.N, vec{}) {
      scan::read_rates(s.a.A, lane_of(block, s.a.channels), s.N, lanes::LOG2E, rates.data());
    }
  };

  // Runs one chunk of one block; without output it only moves the state on.
  template <bool OUTPUT>
  void run_chunk(int64_t b, int64_t chunk, const Rows& rows, int64_t block, State& state) const {
    const Lane lane = lane_of(block, a.channels);
    const vec D = channel(a.D, lane), bias = channel(a.bias, lane);
    vec dt[CHUNK], input[CHUNK], y[CHUNK];
    for (int t = 0; t < rows.tokens; ++t) {
      const vec u = lane.get(a.u.at(b, rows.at[t]));
      dt[t] = step_size(lane.get(a.delta.at(b, rows.at[t])) + bias);
      input[t] = dt[t] * u;
      y[t] = D * u;
      if (!OUTPUT) state.elapsed += dt[t];
    }
    if (OUTPUT && a.chunk_states) scan::keep_states(slab(b, chunk), lane, N, state.h.data());
    scan::advance<OUTPUT>(rows.p, rows.tokens, N, dt, input, state.rates.data(), state.h.data(), y);
    for (int t = 0; OUTPUT && t < rows.tokens; ++t) {
      vec out = y[t];
      if (a.z.data) out *= lanes::silu(lane.get(a.z.at(b, rows.at[t])));
      lane.put(a.out.at(b, rows.at[t]), out);
    }
  }

  // Runs the chunks [first, last) of a group, from and to the states of its blocks.
  template <bool OUTPUT>
  void run_group(const Group& g, int64_t first, int64_t last, std::vector<State>& states) const {
    Rows rows;
    for (int64_t c = first; c < last; ++c) {
      find_rows(g.b, c, rows);
      for (int64_t k = g.first; k < g.last; ++k)
        run_chunk<OUTPUT>(g.b, c, rows, k, states[k - g.first]);
    }
  }

  void forward() const {
    const std::vector<Group> all = groups();
    const int64_t count = static_cast<int64_t>(all.size());
    const int64_t parts = scan::parts_for(count, chunks, a.threads);
    auto border = [&](int64_t part) { return chunks * part / parts; };
    std::vector<std::vector<State>> states(parts * count);  // where each part of a group starts
    pool::run(a.threads, parts * count, [&](int64_t i) {
      const Group& g = all[i % count];
      for (int64_t k = g.first; k < g.last; ++k) states[i].emplace_back(*this, k);
    });
    if (parts > 1) join_parts(all, parts, states);
    pool::run(a.threads, parts * count, [&](int64_t i) {
      const int64_t part = i / count;
      run_group<true>(all[i % count], border(part), border(part + 1), states[i]);
    });
  }

  // Finds the state every part starts from: each is run from zero, then
  // start of the next = end from zero + exp(A elapsed) start.
  void join_parts(const std::vector<Group>& all, int64_t parts,
                  std::vector<std::vector<State>>& states) const {
    const int64_t count = static_cast<int64_t>(all.size());
    std::vector<std::vector<State>> ends(states.begin(), states.end() - count);
    pool::run(a.threads, (parts - 1) * count, [&](int64_t i) {
      const int64_t part = i / count;
      run_group<false>(all[i % count], chunks * part / parts, chunks * (part + 1) / parts, ends[i]);
    });
    for (int64_t i = 0; i < (parts - 1) * count; ++i)
      for (size_t k = 0; k < ends[i].size(); ++k) {
        const State &start = states[i][k], &end = ends[i][k];
        for (int64_t n = 0; n < N; ++n)
          states[i + count][k].h[n] =
              end.h[n] + lanes::exp2(end.elapsed * end.rates[n]) * start.h[n];
      }
  }

  // ---- backward ----

  struct Running {  // carried from chunk to chunk, back in time, for one block
    std::vector<vec> rates, h, dh, dA;
    vec dD{}, dbias{};
    scan::Sweep sweep;  // of the chunk at hand
    Running(const Scan& s, int64_t block) : rates(s.N), h(s.N), dh(s.N, vec{}), dA(s.N, vec{}) {
      scan::read_rates(s.a.A, lane_of(block, s.a.channels), s.N, lanes::LOG2E, rates.data());
    }
  };

  void prepare(int64_t b, int64_t chunk, const Rows& rows, const Lane& lane, Running& run) const {
    const vec bias = channel(a.bias, lane);
    scan::Sweep& s = run.sweep;
    scan::recall_states(slab(b, chunk), lane, N, run.h.data());
    for (int t = 0; t < rows.tokens; ++t) {
      const int64_t r = rows.at[t];
      s.dt[t] = step_size(lane.get(a.delta.at(b, r)) + bias);
      s.input[t] = s.dt[t] * lane.get(a.u.at(b, r));
      s.dy[t] = lane.get(a.dout.at(b, r));
      if (a.z.data) s.dy[t] *= lanes::silu(lane.get(a.z.at(b, r)));
      s.y[t] = s.through_B[t] = s.through_A[t] = vec{};
    }
  }

  void finish(int64_t b, const Rows& rows, const Lane& lane, Running& run) const {
    const vec D = channel(a.D, lane), bias = channel(a.bias, lane);
    const scan::Sweep& s = run.sweep;
    for (int t = 0; t < rows.tokens; ++t) {
      const int64_t r = rows.at[t];
      const vec u = lane.get(a.u.at(b, r));
      if (a.z.data) {
        const vec slope = lanes::silu_slope(lane.get(a.z.at(b, r)));
        lane.put(a.dz.at(b, r), lane.get(a.dout.at(b, r)) * (s.y[t] + D * u) * slope);
      }
      run.dD += s.dy[t] * u;
      lane.put(a.du.at(b, r), s.through_B[t] * s.dt[t] + D * s.dy[t]);
      vec ddelta = s.through_A[t] * lanes::LN2 + s.through_B[t] * u;
      if (a.softplus) ddelta *= lanes::sigmoid(lane.get(a.delta.at(b, r)) + bias);
      run.dbias += ddelta;
      lane.put(a.ddelta.at(b, r), ddelta);
    }
  }

  struct Part { std::vector<float> dB, dC; };  // one group's share of a batch item's dB and dC

  // Adds the lane sums of a tile of states to rows of a dense (length, states) buffer.
  template <int SIZE>
  void flush(const Rows& rows, int64_t first, std::vector<vec>& from, float* to) const {
    float sums[CHUNK * SIZE] = {};
    scan::gather<SIZE>(from, sums);
    for (int t = 0; t < rows.tokens; ++t)
      for (int n = 0; n < SIZE; ++n) to[rows.at[t] * N + first + n] = sums[t * SIZE + n];
  }

  void backward_group(const Group& g, Part& part) const {
    part.dB.resize(a.length * N);
    part.dC.resize(a.length * N);
    std::vector<vec> dB(CHUNK * scan::BACKWARD_TILE, vec{}), dC(dB);
    std::vector<Running> running;
    for (int64_t k = g.first; k < g.last; ++k) running.emplace_back(*this, k);
    Rows rows;
    scan::Replay replayed;
    for (int64_t c = chunks - 1; c >= 0; --c) {
      find_rows(g.b, c, rows);
      for (int64_t k = g.first; k < g.last; ++k)
        prepare(g.b, c, rows, lane_of(k, a.channels), running[k - g.first]);
      scan::tiles<scan::BACKWARD_TILE>(N, [&](auto size, int64_t first) {
        constexpr int SIZE = decltype(size)::value;
        for (Running& run : running) {
          scan::replay<SIZE>(rows.p, rows.tokens, first, run.rates.data(), run.h.data(), run.sweep,
                             replayed);
          scan::sweep_back<SIZE>(rows.p, rows.tokens, first, run.rates.data(), run.sweep, replayed,
                                 run.dh.data(), run.dA.data(), dB.data(), dC.data());
        }
        flush<SIZE>(rows, first, dB, part.dB.data());
        flush<SIZE>(rows, first, dC, part.dC.data());
      });
      for (int64_t k = g.first; k < g.last; ++k)
        finish(g.b, rows, lane_of(k, a.channels), running[k - g.first]);
    }
    for (int64_t k = g.first; k < g.last; ++k)
      store(g.b, lane_of(k, a.channels), running[k - g.first]);
  }

  void store(int64_t b, const Lane& lane, const Running& run) const {
    scan::write_rates(a.dA + b * a.channels * N, lane, N, run.dA.data());
    if (a.dD) lane.put(a.dD + b * a.channels, run.dD);
    if (a.dbias) lane.put(a.dbias + b * a.channels, run.dbias);
  }

  void backward() const {
    const std::vector<Group> all = groups();
    const int64_t count = static_cast<int64_t>(all.size()), size = a.length * N;
    std::vector<Part> parts(count);
    pool::run(a.threads, count, [&](int64_t i) { backward_group(all[i], parts[i]); });
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = 0; j < size; ++j) {
        a.dB.data[all[i].b * size + j] += parts[i].dB[j];
        a.dC.data[all[i].b * size + j] += parts[i].dC[j];
      }
  }
};

template <class Call>
int guarded(const ScanArguments& a, Call call) {
  if (a.states < 1 || a.states > scan::MAX_STATES) return 1;
  try {
    call(Scan{a});
  } catch (const std::bad_alloc&) {
    return 2;
  }
  return 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int segmamba_lanes() { return W; }
EXPORT int64_t segmamba_chunk() { return CHUNK; }
EXPORT int segmamba_scan_forward(const ScanArguments* a) {
  return guarded(*a, [](const Scan& s) { s.forward(); });
}
EXPORT int segmamba_scan_backward(const ScanArguments* a) {
  return guarded(*a, [](const Scan& s) { s.backward(); });
}

// exp, softplus and sigmoid of `count` values, so that tests can bind them to float64.
EXPORT void segmamba_functions(const float* x, int64_t count, float* exp, float* softplus,
                               float* sigmoid) {
  for (int64_t i = 0; i < count; i += W) {
    const int some = static_cast<int>(std::min<int64_t>(W, count - i));
    const vec v = lanes::load_some(x + i, some);
    lanes::store_some(exp + i, lanes::exp(v), some);
    lanes::store_some(softplus + i, lanes::softplus(v), some);
    lanes::store_some(sigmoid + i, lanes::sigmoid(v), some);
  }
}
