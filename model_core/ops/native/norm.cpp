// Instance norm and group norm, fused with scale, shift, residual and LeakyReLU; both directions.
//
//   xhat = (x - mean) / sqrt(var + eps)       mean and var per image and group of channels
//   u    = weight * xhat + bias
//   y    = act(u + residual)  or  act(u) + residual          act(u) = u > 0 ? u : slope * u
//
// Work is float32 in registers and float64 across tiles. Sums are taken around the first voxel and
// the mean is subtracted in two parts, so that values far from zero lose no digits.
#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "norm_rows.hpp"

namespace {

using rows::K;
using rows::Rows;
using rows::Span;
using rows::Sums;
using rows::Tensor;
using rows::vec;

enum Residual : int32_t { NONE, BEFORE, AFTER };  // the activation

extern "C" struct NormArguments {
  int64_t batch, voxels, channels, groups;
  const void *x, *residual, *dy;
  void *y, *dx, *dresidual;    // y is read backward if the residual came before the activation
  const float *weight, *bias;  // (channels) or null
  double *mean, *rstd;         // (batch, groups): written forward, read backward
  float *dweight, *dbias;      // (channels) or null: added to
  float eps, slope;
  int32_t bfloat16, mode, threads;
};

double weight_of(const NormArguments& a, int64_t c) { return a.weight ? a.weight[c] : 1.0; }
double bias_of(const NormArguments& a, int64_t c) { return a.bias ? a.bias[c] : 0.0; }

// What both directions know of one image.
template <class E>
struct Image {
  const NormArguments& a;
  const int64_t group_size;
  double *mean, *rstd;  // of this image's groups
  const Rows<E> rows;
  Tensor<E> x;

  Image(const NormArguments& of, int64_t b)
      : a(of),
        group_size(of.channels / of.groups),
        mean(of.mean + b * of.groups),
        rstd(of.rstd + b * of.groups),
        rows(of.voxels, of.channels),
        x(of.x, b, of.voxels, rows, true) {}

  // x becomes (x - high) * scale + shift: high is the mean as a float, and what a float cannot hold
  // of the mean joins the shift.
  std::vector<float> high() const {
    return rows.spread([&](int64_t c) { return mean[c / group_size]; });
  }
  std::vector<float> scale(bool affine) const {
    return rows.spread([&](int64_t c) { return factor(c, affine); });
  }
  std::vector<float> shift(bool affine) const {
    return rows.spread([&](int64_t c) {
      const double m = mean[c / group_size], lost = static_cast<float>(m) - m;
      return lost * factor(c, affine) + (affine ? bias_of(a, c) : 0.0);
    });
  }
  double factor(int64_t c, bool affine) const {
    return rstd[c / group_size] * (affine ? weight_of(a, c) : 1.0);
  }
};

// ---- forward ----

template <class E>
struct Forward : Image<E> {
  using Image<E>::a, Image<E>::rows, Image<E>::x;
  Tensor<E> y, residual;

  Forward(const NormArguments& of, int64_t b)
      : Image<E>(of, b),
        y(of.y, b, of.voxels, rows),
        residual(of.mode == NONE ? nullptr : of.residual, b, of.voxels, rows) {}

  void run() {
    measure();
    if (a.mode == BEFORE) write<BEFORE>();
    else if (a.mode == AFTER) write<AFTER>();
    else write<NONE>();
    y.keep_rest(rows);
  }

  // Mean and 1/deviation of each group, from sums around the first voxel.
  void measure() {
    const auto first = [&](int64_t c) { return E::one(x.data + c); };
    const Sums<E> sums = moments(rows.spread(first));
    for (int64_t g = 0; g < a.groups; ++g) {
      const int64_t from = g * this->group_size, to = from + this->group_size;
      double mean = 0, square = 0;
      for (int64_t c = from; c < to; ++c) mean += sums.one[c] / a.voxels + first(c);
      mean /= this->group_size;
      for (int64_t c = from; c < to; ++c) {
        const double own = sums.one[c] / a.voxels, apart = own + first(c) - mean;
        square += sums.two[c] / a.voxels - own * own + apart * apart;
      }
      this->mean[g] = mean;
      this->rstd[g] = 1.0 / std::sqrt(std::max(0.0, square / this->group_size) + a.eps);
    }
  }

  Sums<E> moments(const std::vector<float>& origin) {
    Sums<E> sums(rows);
    const auto add = [&](int64_t task, int64_t at, int64_t i, int64_t n, bool rest) {
      const Span around = rows::load(&origin[at]);
      Span one{}, two{};
      for (const auto* p = x.base(rest) + i; n; --n, p += rows.width) {
        const Span v = E::load(p);
        for (int k = 0; k < K; ++k) {
          const vec off = v.part[k] - around.part[k];
          one.part[k] += off;
          two.part[k] += off * off;
        }
      }
      sums.add(task, at, one, two);
    };
    rows.sweep(a.threads, add, [&](int64_t task) { sums.tile_done(task); });
    sums.fold();
    return sums;
  }

  template <int32_t MODE>
  void write() {
    const auto high = this->high(), scale = this->scale(true), shift = this->shift(true);
    rows.sweep(a.threads, [&](int64_t, int64_t at, int64_t i, int64_t n, bool rest) {
      const Span m = rows::load(&high[at]), s = rows::load(&scale[at]), t = rows::load(&shift[at]);
      const auto *from = x.base(rest), *more = residual.base(rest);
      for (auto* to = y.base(rest); n; --n, i += rows.width) {
        Span u = E::load(from + i), r{};
        if constexpr (MODE != NONE) r = E::load(more + i);
        for (int k = 0; k < K; ++k) {
          vec v = (u.part[k] - m.part[k]) * s.part[k] + t.part[k];
          if constexpr (MODE == BEFORE) v += r.part[k];
          v = v > 0.0f ? v : v * a.slope;
          if constexpr (MODE == AFTER) v += r.part[k];
          u.part[k] = v;
        }
        E::store(to + i, u);
      }
    });
  }
};

// ---- backward ----
//
// With g the gradient of u, and the means E over a group's channels and voxels:
//   dx = rstd * (weight * g - E[weight * g] - xhat * E[weight * g * xhat])
//   dweight = sum g * xhat,  dbias = sum g

template <class E>
struct Backward : Image<E> {
  using Image<E>::a, Image<E>::rows, Image<E>::x;
  Tensor<E> y, dy, dx, dresidual;
  const std::vector<float> high, rstd, lost, weight, bias;

  Backward(const NormArguments& of, int64_t b)
      : Image<E>(of, b),
        y(of.mode == BEFORE ? of.y : nullptr, b, of.voxels, rows),
        dy(of.dy, b, of.voxels, rows),
        dx(of.dx, b, of.voxels, rows),
        dresidual(of.dresidual, b, of.voxels, rows),
        high(this->Image<E>::high()),
        rstd(this->scale(false)),
        lost(this->shift(false)),
        weight(rows.spread([&](int64_t c) { return weight_of(a, c); })),
        bias(rows.spread([&](int64_t c) { return bias_of(a, c); })) {}

  void run() {
    const Sums<E> sums = products();
    write(common(sums.one), common(sums.two));
    dx.keep_rest(rows);
    dresidual.keep_rest(rows);
    for (int64_t c = 0; c < a.channels; ++c) {
      if (a.dbias) a.dbias[c] += static_cast<float>(sums.one[c]);
      if (a.dweight) a.dweight[c] += static_cast<float>(sums.two[c]);
    }
  }

  // xhat and g of the span at `at`, `i` values into the image.
  void gradient(int64_t at, int64_t i, bool rest, Span& xhat, Span& g) {
    const Span m = rows::load(&high[at]), s = rows::load(&rstd[at]), t = rows::load(&lost[at]);
    const Span w = rows::load(&weight[at]), c = rows::load(&bias[at]);
    xhat = E::load(x.base(rest) + i);
    g = E::load(dy.base(rest) + i);
    Span u;
    for (int k = 0; k < K; ++k) {
      xhat.part[k] = (xhat.part[k] - m.part[k]) * s.part[k] + t.part[k];
      u.part[k] = xhat.part[k] * w.part[k] + c.part[k];
    }
    // With a slope of zero or more, y is positive exactly where its argument was.
    if (y.data) u = E::load(y.base(rest) + i);
    for (int k = 0; k < K; ++k) g.part[k] = u.part[k] > 0.0f ? g.part[k] : g.part[k] * a.slope;
  }

  // Sums of g and of g * xhat.
  Sums<E> products() {
    Sums<E> sums(rows);
    const auto add = [&](int64_t task, int64_t at, int64_t i, int64_t n, bool rest) {
      Span one{}, two{}, xhat, g;
      for (; n; --n, i += rows.width) {
        gradient(at, i, rest, xhat, g);
        for (int k = 0; k < K; ++k) {
          one.part[k] += g.part[k];
          two.part[k] += g.part[k] * xhat.part[k];
        }
      }
      sums.add(task, at, one, two);
    };
    rows.sweep(a.threads, add, [&](int64_t task) { sums.tile_done(task); });
    sums.fold();
    return sums;
  }

  // rstd times the group's mean of weight times what was summed.
  std::vector<float> common(const std::vector<double>& sum) const {
    std::vector<double> mean(a.groups);
    for (int64_t c = 0; c < a.channels; ++c)
      mean[c / this->group_size] += sum[c] * weight_of(a, c) / (a.voxels * this->group_size);
    return rows.spread([&](int64_t c) {
      return mean[c / this->group_size] * this->factor(c, false);
    });
  }

  void write(const std::vector<float>& g_common, const std::vector<float>& gx_common) {
    const std::vector<float> scale = this->scale(true);
    rows.sweep(a.threads, [&](int64_t, int64_t at, int64_t i, int64_t n, bool rest) {
      const Span s = rows::load(&scale[at]);
      const Span p = rows::load(&g_common[at]), q = rows::load(&gx_common[at]);
      Span xhat, g;
      for (; n; --n, i += rows.width) {
        gradient(at, i, rest, xhat, g);
        if (dresidual.data) E::store(dresidual.base(rest) + i, g);
        for (int k = 0; k < K; ++k)
          g.part[k] = g.part[k] * s.part[k] - (p.part[k] + xhat.part[k] * q.part[k]);
        E::store(dx.base(rest) + i, g);
      }
    });
  }
};

// ---- the face ----

bool sound(const NormArguments& a) {
  return a.voxels > 0 && a.channels > 0 && a.groups > 0 && a.channels % a.groups == 0 &&
         a.slope >= 0.0f && a.x && a.mean && a.rstd;
}

template <template <class> class Direction>
int run(const NormArguments& a, bool complete) {
  if (!complete || !sound(a)) return 1;
  try {
    for (int64_t b = 0; b < a.batch; ++b)
      if (a.bfloat16) Direction<rows::Bfloat16>(a, b).run();
      else Direction<rows::Float32>(a, b).run();
    return 0;
  } catch (const std::bad_alloc&) {
    return 2;
  }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int segmamba_norm_forward(const NormArguments* a) {
  return run<Forward>(*a, a->y && (a->mode == NONE || a->residual));
}

EXPORT int segmamba_norm_backward(const NormArguments* a) {
  return run<Backward>(*a, a->dy && a->dx && (a->mode != BEFORE || a->y));
}
