// The gradients of the fused Mamba operation (mamba_inner.cpp) by every tensor that goes in.
//
// Stretches are walked from the last to the first. Each is mixed again, then scanned back chunk by
// chunk from the kept states (blocks of channels are independent), then the gradients of r, B and C
// go through x_proj and the activation (tokens are independent), then through the convolution and
// into the weights (blocks again). Everything that is summed over tokens belongs to one block of
// channels and is added up in the order of the walk, so the result does not depend on who was
// faster.
#include "mamba_inner.hpp"

namespace {

using namespace mamba;

struct Sums {  // the gradients of one direction's weights, padded like the weights, and of its state
  std::vector<float> taps, conv_bias, x_proj, dt_proj, dt_bias, skip;
  std::vector<vec> A, h;
  explicit Sums(const Sizes& s)
      : taps(s.width * s.row), conv_bias(s.row), x_proj(s.mixed * s.row), dt_proj(s.rank * s.row),
        dt_bias(s.row), skip(s.row), A(s.blocks * s.states), h(s.blocks * s.states) {}
};

inline void add(float* to, vec v) { lanes::store(to, lanes::load(to) + v); }

// Takes the padding out of a (rows, padded(columns)) matrix, or of its transpose.
void unpad_rows(const std::vector<float>& from, int64_t rows, int64_t columns, float* to) {
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(from.data() + i * padded(columns), columns, to + i * columns);
}
void unpad_transposed(const std::vector<float>& from, int64_t rows, int64_t columns, float* to) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) to[j * rows + i] = from[i * padded(columns) + j];
}

struct Backward : Inner {
  const int64_t rank_row = padded(s.rank);
  std::vector<Stretch> stretches = Inner::stretches();
  std::vector<std::vector<float>> x_proj_rows;   // per direction (mixed, row)
  std::vector<std::vector<float>> dt_proj_rows;  // per direction (channels, rank_row)
  std::vector<Sums> sums;                        // per direction
  Mixed buffers[2];
  std::vector<float> dx;       // (tokens, row): of x', later of the convolution before activation
  std::vector<float> draw;     // (tokens, row): of dt before bias and softplus
  std::vector<float> dmixed;   // (tokens, mixed_row): of r, B and C
  std::vector<std::vector<float>> shares;  // per group of blocks of B and C, see share_of
  std::vector<float> later;    // (width - 1, row): dx of the first tokens of the stretch after

  explicit Backward(const MambaArguments& arguments)
      : Inner(arguments),
        sums(a.directions, Sums(s)),
        buffers{Mixed(s, reach()), Mixed(s, reach())},
        dx(reach() * s.row),
        draw(reach() * s.row),
        dmixed(reach() * s.mixed_row),
        shares(groups(), std::vector<float>(padded_reach() * 2 * s.states)),
        later((s.width - 1) * s.row) {
    std::reverse(stretches.begin(), stretches.end());
    for (int64_t i = 0; i < a.directions; ++i) {
      x_proj_rows.push_back(pad_rows(a.x_proj + i * s.mixed * s.channels, s.mixed, s.channels));
      dt_proj_rows.push_back(pad_rows(a.dt_proj + i * s.channels * s.rank, s.channels, s.rank));
    }
  }
  int64_t padded_reach() const { return scan::ceil_div(reach(), CHUNK) * CHUNK; }
  float* dx_row(int64_t b, int64_t r) const {
    return a.dxz + (b * a.length + r) * 2 * s.channels;
  }
  float* dz_row(int64_t b, int64_t r) const { return dx_row(b, r) + s.channels; }
  const float* dout_row(int64_t b, int64_t r) const {
    return a.dout + (b * a.length + r) * s.channels;
  }
  // Directions are walked from the last one, so that one stores and the others add.
  bool stores(const Stretch& at) const { return at.direction == a.directions - 1; }

  void run() {
    const int64_t count = static_cast<int64_t>(stretches.size());
    auto chunks_of = [&](int64_t i) {
      return i < count ? scan::ceil_div(stretches[i].tokens(), CHUNK) : 0;
    };
    auto mix_chunk = [&](int64_t i, int64_t chunk) {
      mix(stretches[i], stretches[i].first + chunk * CHUNK, buffers[i % 2]);
    };
    if (count) pool::run(a.threads, chunks_of(0), [&](int64_t task) { mix_chunk(0, task); });
    for (int64_t i = 0; i < count; ++i) {
      const Stretch& at = stretches[i];
      const Mixed& mixed = buffers[i % 2];
      if (at.last == a.length) begin(at);
      pool::run(a.threads, groups(), [&](int64_t group) { scan_back(at, mixed, group); });
      pool::run(a.threads, chunks_of(i), [&](int64_t chunk) {
        mix_back(at, at.first + chunk * CHUNK);
      });
      pool::run(a.threads, groups() + chunks_of(i + 1), [&](int64_t task) {
        if (task < groups()) weigh(at, mixed, task);
        else mix_chunk(i + 1, task - groups());
      });
      pass_on(at);
    }
    store();
  }

  void begin(const Stretch& at) {
    Sums& sum = sums[at.direction];
    std::fill(sum.h.begin(), sum.h.end(), vec{});
    std::fill(later.begin(), later.end(), 0.0f);
  }

  // ---- blocks: back through the scan ----

  static constexpr int64_t AT_ONCE = 4;
  struct Block {
    std::vector<vec> h;
    vec raw[CHUNK] = {};
    scan::Sweep sweep = {};
    explicit Block(int64_t states) : h(states) {}
  };

  // Takes few blocks at a time, so that what the sweep needs of them stays close.
  void scan_back(const Stretch& at, const Mixed& mixed, int64_t group) {
    const int64_t last = group_border(group + 1);
    std::vector<Block> some(std::min(AT_ONCE, last - group_border(group)), Block(s.states));
    std::vector<vec> dB(CHUNK * scan::BACKWARD_TILE, vec{}), dC(dB);
    Rows rows;
    for (int64_t c = (at.last - 1) / CHUNK; c >= at.first / CHUNK; --c) {
      find_rows(at, c * CHUNK, mixed, rows);
      float* share = share_of(group, c * CHUNK - at.first);
      std::fill_n(share, CHUNK * 2 * s.states, 0.0f);
      for (int64_t k = group_border(group); k < last; k += AT_ONCE) {
        const int64_t count = std::min(AT_ONCE, last - k);
        for (int64_t i = 0; i < count; ++i) prepare(at, c, rows, k + i, some[i]);
        scan::tiles<scan::BACKWARD_TILE>(s.states, [&](auto size, int64_t first) {
          constexpr int SIZE = decltype(size)::value;
          for (int64_t i = 0; i < count; ++i)
            sweep_tile<SIZE>(at.direction, first, rows, k + i, some[i], dB, dC);
          scan::gather<SIZE>(dB, share + first * CHUNK);
          scan::gather<SIZE>(dC, share + (s.states + first) * CHUNK);
        });
        for (int64_t i = 0; i < count; ++i) finish(at, c, rows, k + i, some[i]);
      }
    }
  }

  template <int SIZE>
  void sweep_tile(int64_t direction, int64_t first, const Rows& rows, int64_t index, Block& block,
                  std::vector<vec>& dB, std::vector<vec>& dC) {
    scan::Replay replayed;
    Sums& sum = sums[direction];
    const int64_t slot = index * s.states;
    const vec* rates = &directions[direction].rates[slot];
    scan::replay<SIZE>(rows.p, rows.tokens, first, rates, block.h.data(), block.sweep,
                       replayed);
    scan::sweep_back<SIZE>(rows.p, rows.tokens, first, rates, block.sweep, replayed,
                           &sum.h[slot], &sum.A[slot], dB.data(), dC.data());
  }

  // A group's share of dB and dC for the chunk at token `start` of the stretch. For every tile of
  // states, as wide as scan::tiles cuts them: B's (CHUNK, width) values; then C's likewise.
  float* share_of(int64_t group, int64_t start) { return &shares[group][start * 2 * s.states]; }

  // Adds the groups' shares of one token to its row of (dB | dC).
  void add_shares(int64_t start, int t, float* to) {
    for (size_t group = 0; group < shares.size(); ++group)
      for (int64_t half : {int64_t{0}, s.states}) {
        const float* share = share_of(group, start) + half * CHUNK;
        scan::tiles<scan::BACKWARD_TILE>(s.states, [&](auto size, int64_t first) {
          constexpr int SIZE = decltype(size)::value;
          for (int n = 0; n < SIZE; ++n)
            to[half + first + n] += share[first * CHUNK + t * SIZE + n];
        });
      }
  }

  void prepare(const Stretch& at, int64_t chunk, const Rows& rows, int64_t index,
               Block& block) const {
    const Lane lane = scan::lane_of(index, s.channels);
    scan::recall_states(slab(at.direction, at.b, chunk), lane, s.states, block.h.data());
    raw_steps(directions[at.direction], index, rows, block.raw);
    scan::Sweep& w = block.sweep;
    for (int t = 0; t < rows.tokens; ++t) {
      w.dt[t] = lanes::softplus(block.raw[t]);
      w.input[t] = w.dt[t] * lanes::load(rows.x + t * s.row + lane.d);
      w.dy[t] = lane.get(dout_row(at.b, rows.at[t])) *
                lanes::silu(lane.get(z_row(at.b, rows.at[t])));
      w.y[t] = w.through_B[t] = w.through_A[t] = vec{};
    }
  }

  void finish(const Stretch& at, int64_t chunk, const Rows& rows, int64_t index,
              const Block& block) {
    const Lane lane = scan::lane_of(index, s.channels);
    const vec skip = lanes::load(&directions[at.direction].skip[lane.d]);
    const scan::Sweep& w = block.sweep;
    const int64_t first = (chunk * CHUNK - at.first) * s.row + lane.d;
    vec dskip{}, dbias{};
    for (int t = 0; t < rows.tokens; ++t) {
      const vec x = lanes::load(rows.x + t * s.row + lane.d);
      const vec dz = lane.get(dout_row(at.b, rows.at[t])) * (w.y[t] + skip * x) *
                     lanes::silu_slope(lane.get(z_row(at.b, rows.at[t])));
      float* to = dz_row(at.b, rows.at[t]);
      lane.put(to, stores(at) ? dz : lane.get(to) + dz);
      const vec step = (w.through_A[t] * lanes::LN2 + w.through_B[t] * x) *
                       lanes::sigmoid(block.raw[t]);
      lanes::store(&dx[first + t * s.row], w.through_B[t] * w.dt[t] + skip * w.dy[t]);
      lanes::store(&draw[first + t * s.row], step);
      dskip += w.dy[t] * x;
      dbias += step;
    }
    add(&sums[at.direction].skip[lane.d], dskip);
    add(&sums[at.direction].dt_bias[lane.d], dbias);
  }

  // ---- tokens: back through the projections and the activation ----

  void mix_back(const Stretch& at, int64_t first) {
    const int tokens = static_cast<int>(std::min<int64_t>(CHUNK, at.last - first));
    const int64_t start = first - at.first;
    float* mixed = dmixed.data() + start * s.mixed_row;
    std::vector<float> dr(tokens * rank_row);
    gemm::multiply({draw.data() + start * s.row, s.row, 1},
                   {dt_proj_rows[at.direction].data(), rank_row}, {dr.data(), rank_row, false},
                   tokens, s.channels, rank_row / W);
    for (int t = 0; t < tokens; ++t) {
      float* to = mixed + t * s.mixed_row;
      std::copy_n(&dr[t * rank_row], s.rank, to);
      std::fill_n(to + s.rank, 2 * s.states, 0.0f);
      add_shares(start, t, to + s.rank);
    }
    float* x = dx.data() + start * s.row;
    gemm::multiply({mixed, s.mixed_row, 1}, {x_proj_rows[at.direction].data(), s.row},
                   {x, s.row, true}, tokens, s.mixed, s.blocks);
    Window window;
    find_window(at, first, tokens, window);
    for (int64_t k = 0; k < s.blocks; ++k) {
      const Lane lane = scan::lane_of(k, s.channels);
      convolve(directions[at.direction], lane, window, tokens, [&](int t, vec p) {
        float* to = x + t * s.row + lane.d;
        lanes::store(to, lanes::load(to) * lanes::silu_slope(p));
      });
    }
  }

  // ---- blocks: into the weights, and back through the convolution ----

  void weigh(const Stretch& at, const Mixed& mixed, int64_t group) {
    const int64_t k = group_border(group), vectors = group_border(group + 1) - k;
    Sums& sum = sums[at.direction];
    gemm::multiply({dmixed.data(), 1, s.mixed_row}, {mixed.x.data() + k * W, s.row},
                   {sum.x_proj.data() + k * W, s.row, true}, s.mixed, at.tokens(), vectors);
    gemm::multiply({mixed.projections.data(), 1, s.mixed_row}, {draw.data() + k * W, s.row},
                   {sum.dt_proj.data() + k * W, s.row, true}, s.rank, at.tokens(), vectors);
    Window window;
    for (int64_t first = at.first; first < at.last; first += CHUNK) {
      const int tokens = static_cast<int>(std::min<int64_t>(CHUNK, at.last - first));
      find_window(at, first, tokens, window);
      for (int64_t block = k; block < k + vectors; ++block)
        convolve_back(at, first, tokens, window, scan::lane_of(block, s.channels));
    }
  }

  void convolve_back(const Stretch& at, int64_t first, int tokens, const Window& window,
                     const Lane& lane) {
    const Direction& d = directions[at.direction];
    Sums& sum = sums[at.direction];
    const float* after[CHUNK + MAX_WIDTH - 1];  // dx of these tokens and the few after them
    for (int64_t i = 0; i < tokens + s.width - 1; ++i) {
      const int64_t t = first - at.first + i;
      after[i] = (t < at.tokens() ? &dx[t * s.row] : &later[(t - at.tokens()) * s.row]) + lane.d;
    }
    vec taps[MAX_WIDTH], dtaps[MAX_WIDTH] = {}, dbias{};
    for (int64_t k = 0; k < s.width; ++k) taps[k] = lanes::load(&d.taps[k * s.row + lane.d]);
    for (int t = 0; t < tokens; ++t) {
      const vec here = lanes::load(after[t]);
      vec back{};
      for (int64_t k = 0; k < s.width; ++k) {
        dtaps[k] += here * lane.get(window.rows[t + k]);
        back += taps[k] * lanes::load(after[t + s.width - 1 - k]);
      }
      dbias += here;
      float* to = dx_row(at.b, d.at(first + t));
      lane.put(to, stores(at) ? back : lane.get(to) + back);
    }
    for (int64_t k = 0; k < s.width; ++k) add(&sum.taps[k * s.row + lane.d], dtaps[k]);
    add(&sum.conv_bias[lane.d], dbias);
  }

  // Keeps what the tokens before this stretch will need of it.
  void pass_on(const Stretch& at) {
    const int64_t reached = std::min(s.width - 1, at.tokens());
    std::copy_backward(later.begin(), later.end() - reached * s.row, later.end());
    std::copy_n(dx.begin(), reached * s.row, later.begin());
  }

  void store() const {
    for (int64_t i = 0; i < a.directions; ++i) {
      const Sums& sum = sums[i];
      const int64_t D = s.channels;
      unpad_transposed(sum.taps, s.width, D, a.dconv_weight + i * D * s.width);
      unpad_rows(sum.conv_bias, 1, D, a.dconv_bias + i * D);
      unpad_rows(sum.x_proj, s.mixed, D, a.dx_proj + i * s.mixed * D);
      unpad_transposed(sum.dt_proj, s.rank, D, a.ddt_proj + i * D * s.rank);
      unpad_rows(sum.dt_bias, 1, D, a.ddt_bias + i * D);
      unpad_rows(sum.skip, 1, D, a.dD + i * D);
      for (int64_t k = 0; k < s.blocks; ++k)
        scan::write_rates(a.dA + i * D * s.states, scan::lane_of(k, D), s.states,
                          &sum.A[k * s.states]);
    }
  }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int segmamba_mamba_backward(
    const MambaArguments* a) {
  return guarded(*a, [&] { Backward(*a).run(); });
}
