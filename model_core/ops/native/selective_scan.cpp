// Selective scan and causal depthwise convolution on the CPU, forward and backward.
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
// Plain C interface, no Python or libtorch headers, std::thread only: one build serves every
// Python and torch version, and no second OpenMP runtime is linked beside torch's.
#include <algorithm>
#include <thread>
#include <vector>

#include "lanes.hpp"

namespace {

using lanes::vec;
using lanes::W;
constexpr int CHUNK = 32;       // tokens whose states and decays fit in the second-level cache
constexpr int MAX_STATES = 256;

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

extern "C" struct ConvArguments {
  int64_t batch, length, channels, width;
  View x, out;
  const float *weight, *bias;                   // (width, channels), (channels) or null
  const int32_t* order;
  int32_t silu, threads;
  View dout, dx;                                // dx dense and zeroed
  float *dweight, *dbias;                       // (batch, width, channels), (batch, channels)
};

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Calls work(worker, b, first_block, last_block) with every (batch item, channel block) once.
template <class Work>
void parallel_blocks(int64_t batch, int64_t channels, int threads, Work work) {
  const int64_t blocks = ceil_div(channels, W), total = batch * blocks;
  const int64_t workers = std::max<int64_t>(1, std::min<int64_t>(threads, total));
  auto run = [&](int64_t worker) {
    int64_t first = total * worker / workers;
    const int64_t last = total * (worker + 1) / workers;
    while (first < last) {  // split at batch borders
      const int64_t b = first / blocks, end = std::min(last, (b + 1) * blocks);
      work(worker, b, first - b * blocks, end - b * blocks);
      first = end;
    }
  };
  std::vector<std::thread> pool;
  for (int64_t w = 1; w < workers; ++w) pool.emplace_back(run, w);
  run(0);
  for (auto& t : pool) t.join();
}

struct Lane {  // one block of at most W channels
  int64_t d;
  int count;
  vec get(const float* row) const { return lanes::load_some(row + d, count); }
  void put(float* row, vec v) const { lanes::store_some(row + d, v, count); }
};

Lane lane_of(int64_t block, int64_t channels) {
  return {block * W, static_cast<int>(std::min<int64_t>(W, channels - block * W))};
}

template <int FIXED>
struct Scan {
  const ScanArguments& a;
  const int64_t N;
  const int64_t chunks;
  explicit Scan(const ScanArguments& args)
      : a(args), N(FIXED ? FIXED : args.states), chunks(ceil_div(args.length, CHUNK)) {}

  int64_t states() const { return FIXED ? FIXED : N; }
  int64_t row(int64_t t) const { return a.order ? a.order[t] : t; }
  float* kept(int64_t b, int64_t chunk, int64_t d) const {
    return a.chunk_states + ((b * chunks + chunk) * a.channels + d) * states();
  }
  vec step_size(vec raw, vec bias) const {
    const vec x = raw + bias;
    return a.softplus ? lanes::softplus(x) : x;
  }
  // Transposes (channels, states) into one vector per state.
  void read_states(const float* p, const Lane& lane, vec* h) const {
    for (int64_t n = 0; n < states(); ++n)
      for (int i = 0; i < W; ++i) h[n][i] = i < lane.count ? p[i * states() + n] : 0.0f;
  }
  void write_states(float* p, const Lane& lane, const vec* h) const {
    for (int i = 0; i < lane.count; ++i)
      for (int64_t n = 0; n < states(); ++n) p[i * states() + n] = h[n][i];
  }
  void read_decay(const Lane& lane, vec* A2) const {  // A log2(e), so that exp2 gives exp(dt A)
    read_states(a.A + lane.d * states(), lane, A2);
    for (int64_t n = 0; n < states(); ++n) A2[n] *= lanes::LOG2E;
  }
  vec channel(const float* p, const Lane& lane) const {
    return p ? lane.get(p) : lanes::splat(0.0f);
  }

  void forward_chunk(int64_t b, int64_t chunk, const Lane& lane, const vec* A2, vec* state) const {
    vec h[FIXED ? FIXED : MAX_STATES];
    for (int64_t n = 0; n < states(); ++n) h[n] = state[n];
    if (a.chunk_states) write_states(kept(b, chunk, lane.d), lane, h);
    const vec D = channel(a.D, lane), bias = channel(a.bias, lane);
    const int64_t end = std::min(a.length, (chunk + 1) * CHUNK);
    for (int64_t t = chunk * CHUNK; t < end; ++t) {
      const int64_t r = row(t);
      const vec u = lane.get(a.u.at(b, r));
      const vec dt = step_size(lane.get(a.delta.at(b, r)), bias);
      const float *B = a.B.at(b, r), *C = a.C.at(b, r);
      const vec input = dt * u;
      vec y = D * u;
      for (int64_t n = 0; n < states(); ++n) {
        h[n] = lanes::exp2(dt * A2[n]) * h[n] + input * B[n];
        y += h[n] * C[n];
      }
      if (a.z.data) {
        const vec z = lane.get(a.z.at(b, r));
        y *= z * lanes::sigmoid(z);
      }
      lane.put(a.out.at(b, r), y);
    }
    for (int64_t n = 0; n < states(); ++n) state[n] = h[n];
  }

  void forward() const {
    parallel_blocks(a.batch, a.channels, a.threads,
                    [&](int64_t, int64_t b, int64_t first, int64_t last) {
      std::vector<vec> A2((last - first) * states()), h((last - first) * states(), vec{});
      for (int64_t k = first; k < last; ++k)
        read_decay(lane_of(k, a.channels), &A2[(k - first) * states()]);
      for (int64_t c = 0; c < chunks; ++c)
        for (int64_t k = first; k < last; ++k)
          forward_chunk(b, c, lane_of(k, a.channels), &A2[(k - first) * states()],
                        &h[(k - first) * states()]);
    });
  }

  // What the reverse sweep over one chunk needs, replayed from the chunk's first state.
  struct Replay {
    std::vector<vec> h, decay, y;       // (CHUNK + 1, N), (CHUNK, N), (CHUNK)
    std::vector<vec> dB, dC;            // (CHUNK, N), lanes still apart
    explicit Replay(int64_t n)
        : h((CHUNK + 1) * n), decay(CHUNK * n), y(CHUNK), dB(CHUNK * n), dC(CHUNK * n) {}
  };
  struct Running {                      // carried from chunk to chunk, per channel block
    std::vector<vec> dh, dA;
    vec dD{}, dbias{};
    explicit Running(int64_t n) : dh(n, vec{}), dA(n, vec{}) {}
  };

  void replay_chunk(int64_t b, int64_t chunk, const Lane& lane, const vec* A2, Replay& s) const {
    read_states(kept(b, chunk, lane.d), lane, s.h.data());
    const vec bias = channel(a.bias, lane);
    const int64_t start = chunk * CHUNK, end = std::min(a.length, start + CHUNK);
    for (int64_t t = start; t < end; ++t) {
      const int64_t r = row(t), i = t - start;
      const vec dt = step_size(lane.get(a.delta.at(b, r)), bias);
      const vec input = dt * lane.get(a.u.at(b, r));
      const float *B = a.B.at(b, r), *C = a.C.at(b, r);
      const vec* before = &s.h[i * states()];
      vec *after = &s.h[(i + 1) * states()], *decay = &s.decay[i * states()];
      vec y{};
      for (int64_t n = 0; n < states(); ++n) {
        decay[n] = lanes::exp2(dt * A2[n]);
        after[n] = decay[n] * before[n] + input * B[n];
        y += after[n] * C[n];
      }
      s.y[i] = y;
    }
  }

  void backward_chunk(int64_t b, int64_t chunk, const Lane& lane, Replay& s, Running& run) const {
    const vec D = channel(a.D, lane), bias = channel(a.bias, lane);
    const float* A = a.A + lane.d * states();
    vec rates[FIXED ? FIXED : MAX_STATES];
    read_states(A, lane, rates);
    const int64_t start = chunk * CHUNK, end = std::min(a.length, start + CHUNK);
    for (int64_t t = end - 1; t >= start; --t) {
      const int64_t r = row(t), i = t - start;
      const vec u = lane.get(a.u.at(b, r)), raw = lane.get(a.delta.at(b, r));
      const vec dt = step_size(raw, bias);
      vec dy = lane.get(a.dout.at(b, r));
      if (a.z.data) {
        const vec z = lane.get(a.z.at(b, r)), gate = lanes::sigmoid(z);
        lane.put(a.dz.at(b, r), dy * (s.y[i] + D * u) * gate * (1.0f + z * (1.0f - gate)));
        dy *= z * gate;
      }
      const float *B = a.B.at(b, r), *C = a.C.at(b, r);
      const vec *before = &s.h[i * states()], *after = before + states();
      const vec* decay = &s.decay[i * states()];
      vec *dB = &s.dB[i * states()], *dC = &s.dC[i * states()];
      const vec input = dt * u;
      vec through_B{}, through_A{};
      for (int64_t n = 0; n < states(); ++n) {
        const vec dh = run.dh[n] + dy * C[n];
        const vec kept_part = decay[n] * before[n];
        const vec slope = dh * kept_part;
        dC[n] += dy * after[n];
        dB[n] += dh * input;
        through_B += dh * B[n];
        through_A += slope * rates[n];
        run.dA[n] += slope * dt;
        run.dh[n] = dh * decay[n];
      }
      run.dD += dy * u;
      lane.put(a.du.at(b, r), through_B * dt + D * dy);
      vec ddelta = through_A + through_B * u;
      if (a.softplus) ddelta *= lanes::sigmoid(raw + bias);
      run.dbias += ddelta;
      lane.put(a.ddelta.at(b, r), ddelta);
    }
  }

  // Adds the lane sums of a chunk to rows of a dense (length, states) buffer.
  void flush(int64_t chunk, std::vector<vec>& from, float* to) const {
    const int64_t start = chunk * CHUNK, end = std::min(a.length, start + CHUNK);
    for (int64_t t = start; t < end; ++t)
      for (int64_t n = 0; n < states(); ++n)
        to[row(t) * states() + n] += lanes::sum(from[(t - start) * states() + n]);
    std::fill(from.begin(), from.end(), vec{});
  }

  void store_running(int64_t b, const Lane& lane, const Running& run) const {
    write_states(a.dA + (b * a.channels + lane.d) * states(), lane, run.dA.data());
    if (a.dD) lane.put(a.dD + b * a.channels, run.dD);
    if (a.dbias) lane.put(a.dbias + b * a.channels, run.dbias);
  }

  void backward() const {
    const int64_t size = a.length * states();
    // Workers share a batch item's dB and dC; each sums into its own copy, added up afterwards.
    struct Part { int64_t b; std::vector<float> dB, dC; };
    const int64_t slots = std::max<int64_t>(1, a.threads) + a.batch;
    std::vector<std::vector<Part>> parts(slots);
    parallel_blocks(a.batch, a.channels, a.threads,
                    [&](int64_t worker, int64_t b, int64_t first, int64_t last) {
      Part part{b, std::vector<float>(size), std::vector<float>(size)};
      Replay scratch(states());
      std::vector<Running> running(last - first, Running(states()));
      std::vector<vec> A2((last - first) * states());
      for (int64_t k = first; k < last; ++k)
        read_decay(lane_of(k, a.channels), &A2[(k - first) * states()]);
      for (int64_t c = chunks - 1; c >= 0; --c) {
        for (int64_t k = first; k < last; ++k) {
          const Lane lane = lane_of(k, a.channels);
          replay_chunk(b, c, lane, &A2[(k - first) * states()], scratch);
          backward_chunk(b, c, lane, scratch, running[k - first]);
        }
        flush(c, scratch.dB, part.dB.data());
        flush(c, scratch.dC, part.dC.data());
      }
      for (int64_t k = first; k < last; ++k)
        store_running(b, lane_of(k, a.channels), running[k - first]);
      parts[worker].push_back(std::move(part));
    });
    for (const auto& list : parts)
      for (const Part& part : list)
        for (int64_t i = 0; i < size; ++i) {
          a.dB.data[part.b * size + i] += part.dB[i];
          a.dC.data[part.b * size + i] += part.dC[i];
        }
  }
};

// ---- causal depthwise convolution: out_t = act(bias + sum_k w_k x_(t - width + 1 + k)) ----

struct Conv {
  const ConvArguments& a;
  int64_t row(int64_t t) const { return a.order ? a.order[t] : t; }
  vec weight(int64_t k, const Lane& lane) const { return lane.get(a.weight + k * a.channels); }

  vec before_activation(int64_t b, int64_t t, const Lane& lane, const vec* w, vec bias) const {
    vec p = bias;
    for (int64_t k = std::max<int64_t>(0, a.width - 1 - t); k < a.width; ++k)
      p += w[k] * lane.get(a.x.at(b, row(t - a.width + 1 + k)));
    return p;
  }

  template <class Body>
  void over_chunks(Body body) const {
    constexpr int64_t chunk = 256;
    parallel_blocks(a.batch, a.channels, a.threads,
                    [&](int64_t, int64_t b, int64_t first, int64_t last) {
      for (int64_t start = 0; start < a.length; start += chunk)
        for (int64_t k = first; k < last; ++k)
          body(b, start, std::min(a.length, start + chunk), lane_of(k, a.channels));
    });
  }

  void forward() const {
    over_chunks([&](int64_t b, int64_t start, int64_t end, const Lane& lane) {
      vec w[16];
      for (int64_t k = 0; k < a.width; ++k) w[k] = weight(k, lane);
      const vec bias = a.bias ? lane.get(a.bias) : vec{};
      for (int64_t t = start; t < end; ++t) {
        vec p = before_activation(b, t, lane, w, bias);
        if (a.silu) p *= lanes::sigmoid(p);
        lane.put(a.out.at(b, row(t)), p);
      }
    });
  }

  void backward() const {
    over_chunks([&](int64_t b, int64_t start, int64_t end, const Lane& lane) {
      vec w[16], dw[16] = {}, dbias{};
      for (int64_t k = 0; k < a.width; ++k) w[k] = weight(k, lane);
      const vec bias = a.bias ? lane.get(a.bias) : vec{};
      for (int64_t t = start; t < end; ++t) {
        vec dp = lane.get(a.dout.at(b, row(t)));
        if (a.silu) {
          const vec p = before_activation(b, t, lane, w, bias), s = lanes::sigmoid(p);
          dp *= s * (1.0f + p * (1.0f - s));
        }
        dbias += dp;
        for (int64_t k = std::max<int64_t>(0, a.width - 1 - t); k < a.width; ++k) {
          const int64_t r = row(t - a.width + 1 + k);
          dw[k] += dp * lane.get(a.x.at(b, r));
          lane.put(a.dx.at(b, r), lane.get(a.dx.at(b, r)) + dp * w[k]);
        }
      }
      for (int64_t k = 0; k < a.width; ++k) {
        float* to = a.dweight + (b * a.width + k) * a.channels;
        lane.put(to, lane.get(to) + dw[k]);
      }
      lane.put(a.dbias + b * a.channels, lane.get(a.dbias + b * a.channels) + dbias);
    });
  }
};

template <class Call>
int dispatch(const ScanArguments& a, Call call) {
  if (a.states < 1 || a.states > MAX_STATES) return 1;
  if (a.states == 16)
    call(Scan<16>(a));
  else
    call(Scan<0>(a));
  return 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int segmamba_lanes() { return W; }
EXPORT int64_t segmamba_chunk() { return CHUNK; }
EXPORT int segmamba_scan_forward(const ScanArguments* a) {
  return dispatch(*a, [](const auto& scan) { scan.forward(); });
}
EXPORT int segmamba_scan_backward(const ScanArguments* a) {
  return dispatch(*a, [](const auto& scan) { scan.backward(); });
}
EXPORT int segmamba_conv_forward(const ConvArguments* a) {
  if (a->width < 1 || a->width > 16) return 1;
  Conv{*a}.forward();
  return 0;
}
EXPORT int segmamba_conv_backward(const ConvArguments* a) {
  if (a->width < 1 || a->width > 16) return 1;
  Conv{*a}.backward();
  return 0;
}
