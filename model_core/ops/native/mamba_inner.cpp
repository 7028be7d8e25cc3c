// The inside of a Mamba block on the CPU: everything between in_proj and out_proj, in one pass.
//
//   x' = silu(conv(x)),  (r | B | C) = x_proj x',  dt = softplus(dt_proj r + bias)
//   h_t = exp(dt_t A) h_(t-1) + dt_t B_t x'_t,     y_t = (C_t . h_t + D x'_t) silu(z_t)
//
// for every scan direction, summed over them (Mamba, arXiv 2312.00752; three directions as in
// SegMamba, arXiv 2401.13560). x and z are the halves of the rows of xz, read where they lie; a
// direction's `order` says at which row its t-th token lies. Step sizes exist in registers only.
//
// The sequence is walked in stretches of tokens whose x', r, B and C fit the caches. A stretch is
// first mixed (convolution and x_proj: tokens are independent) and then scanned (blocks of channels
// are independent); mixing the next stretch and scanning the present one are offered to the
// threads together.
#include "mamba_inner.hpp"

namespace {

using namespace mamba;

struct Forward : Inner {
  const std::vector<Stretch> stretches = Inner::stretches();
  Mixed buffers[2];
  // Stretches may be cut further, into parts that are scanned side by side; see scan::parts_for.
  const int64_t groups = Inner::groups();
  const int64_t parts;
  struct Start {                   // of one part: a state and, while it is being found,
    std::vector<vec> h, elapsed;   // the sum of steps; (blocks, states), (blocks)
  };
  std::vector<Start> starts;       // one a part, and where the next stretch starts

  explicit Forward(const MambaArguments& arguments)
      : Inner(arguments),
        buffers{Mixed(s, reach()), Mixed(s, reach())},
        parts(scan::parts_for(groups, scan::ceil_div(reach(), CHUNK), a.threads)),
        starts(parts + 1, {std::vector<vec>(s.blocks * s.states), std::vector<vec>(s.blocks)}) {}

  // One thread scans a stretch before it mixes the next one, so the same memory serves again.
  Mixed& buffer(int64_t stretch) { return buffers[a.threads > 1 ? stretch % 2 : 0]; }
  void run() {
    const int64_t count = static_cast<int64_t>(stretches.size());
    for (int64_t i = 0; i <= count; ++i) {
      const int64_t scans = i > 0 ? groups * parts : 0;
      const int64_t mixes = i < count ? scan::ceil_div(stretches[i].tokens(), CHUNK) : 0;
      pool::run(a.threads, scans + mixes, [&](int64_t task) {
        if (task < scans) scan_part<true>(stretches[i - 1], buffer(i - 1), task);
        else mix(stretches[i], stretches[i].first + (task - scans) * CHUNK, buffer(i));
      });
      if (i < count) begin(stretches[i], buffer(i));
    }
  }

  // First token of a part, a whole number of chunks from the stretch's first.
  int64_t border(const Stretch& at, int64_t part) const {
    const int64_t total = scan::ceil_div(at.tokens(), CHUNK);
    return std::min(at.last, at.first + total * part / parts * CHUNK);
  }

  // Finds the state at which every part of a mixed stretch starts: each is run from zero, then
  // start of the next = end from zero + exp(A elapsed) start.
  void begin(const Stretch& at, const Mixed& mixed) {
    if (at.first == 0) std::fill(starts[0].h.begin(), starts[0].h.end(), vec{});
    else std::swap(starts[0], starts[parts]);
    if (parts == 1) return;
    for (int64_t p = 1; p < parts; ++p) {
      std::fill(starts[p].h.begin(), starts[p].h.end(), vec{});
      std::fill(starts[p].elapsed.begin(), starts[p].elapsed.end(), vec{});
    }
    pool::run(a.threads, groups * (parts - 1),
              [&](int64_t task) { scan_part<false>(at, mixed, task); });
    const Direction& d = directions[at.direction];
    for (int64_t p = 1; p < parts; ++p)
      for (int64_t i = 0; i < s.blocks * s.states; ++i)
        starts[p].h[i] +=
            lanes::exp2(starts[p].elapsed[i / s.states] * d.rates[i]) * starts[p - 1].h[i];
  }

  // Scans one group of blocks over one part. With output, the part starts from its state and the
  // last one leaves the state after it; without, it starts from zero and leaves the next start.
  template <bool OUTPUT>
  void scan_part(const Stretch& at, const Mixed& mixed, int64_t task) {
    const int64_t part = task / groups, group = task % groups;
    const int64_t first = group_border(group), last = group_border(group + 1);
    const int64_t from = border(at, part), to = border(at, part + 1);
    std::vector<vec> h((last - first) * s.states);
    if (OUTPUT) std::copy_n(&starts[part].h[first * s.states], h.size(), h.begin());
    Rows rows;
    for (int64_t t = from; t < to; t += CHUNK) {
      find_rows({at.b, at.direction, at.first, to}, t, mixed, rows);
      for (int64_t k = first; k < last; ++k)
        scan_chunk<OUTPUT>(at, t / CHUNK, k, rows, &h[(k - first) * s.states],
                           starts[part + 1].elapsed[k]);
    }
    if (!OUTPUT || part + 1 == parts)
      std::copy(h.begin(), h.end(), &starts[part + 1].h[first * s.states]);
  }

  template <bool OUTPUT>
  void scan_chunk(const Stretch& at, int64_t chunk, int64_t block, const Rows& rows, vec* h,
                  vec& elapsed) const {
    const Direction& d = directions[at.direction];
    const Lane lane = scan::lane_of(block, s.channels);
    const vec skip = lanes::load(&d.skip[lane.d]);
    vec dt[CHUNK], input[CHUNK], y[CHUNK];
    raw_steps(d, block, rows, dt);
    for (int t = 0; t < rows.tokens; ++t) {
      if (OUTPUT) __builtin_prefetch(z_row(at.b, rows.ahead[t]) + lane.d);
      if (OUTPUT) __builtin_prefetch(out_row(at.b, rows.ahead[t]) + lane.d, 1);
      const vec x = lanes::load(rows.x + t * s.row + lane.d);
      dt[t] = lanes::softplus(dt[t]);
      input[t] = dt[t] * x;
      y[t] = skip * x;
      if (!OUTPUT) elapsed += dt[t];
    }
    if (OUTPUT && a.chunk_states)
      scan::keep_states(slab(at.direction, at.b, chunk), lane, s.states, h);
    scan::advance<OUTPUT>(rows.p, rows.tokens, s.states, dt, input, &d.rates[block * s.states], h,
                          y);
    for (int t = 0; OUTPUT && t < rows.tokens; ++t) {
      const vec gated = y[t] * lanes::silu(lane.get(z_row(at.b, rows.at[t])));
      float* to = out_row(at.b, rows.at[t]);
      lane.put(to, at.direction ? lane.get(to) + gated : gated);
    }
  }
};

}  // namespace

extern "C" __attribute__((visibility("default"))) int segmamba_mamba_forward(
    const MambaArguments* a) {
  return guarded(*a, [&] { Forward(*a).run(); });
}
