// Instance norm without parameters, fused with LeakyReLU, forward and backward.
//
//   xhat = (x - mean) / sqrt(var + eps),   y = xhat > 0 ? xhat : slope * xhat
//
// Mean and variance are taken per image and channel over the voxels. Tensors are dense
// (batch, voxels, channels): PyTorch's channels_last. slope 1 is the plain norm, 0 is ReLU.
#include <algorithm>
#include <cmath>
#include <thread>
#include <vector>

#include "lanes.hpp"

namespace {

using lanes::vec;
using lanes::W;
constexpr int64_t TILE = 64;  // voxels summed in float before they join a double

extern "C" struct NormArguments {
  int64_t batch, voxels, channels;
  const float *x, *dy;    // dy for the backward pass only
  float *y, *dx;          // dx likewise
  float *mean, *rstd;     // (batch, channels): written forward, read backward
  float eps, slope;
  int32_t threads;
};

// Calls work(worker, first, last) on even shares of the voxels.
template <class Work>
void share(const NormArguments& a, int workers, Work work) {
  std::vector<std::thread> pool;
  auto run = [&](int w) { work(w, a.voxels * w / workers, a.voxels * (w + 1) / workers); };
  for (int w = 1; w < workers; ++w) pool.emplace_back(run, w);
  run(0);
  for (auto& t : pool) t.join();
}

// Calls body(channel, count, first, last) for every tile of voxels and block of W channels.
template <class Body>
void tiles(const NormArguments& a, int64_t first, int64_t last, Body body) {
  for (int64_t start = first; start < last; start += TILE)
    for (int64_t c = 0; c < a.channels; c += W)
      body(c, static_cast<int>(std::min<int64_t>(W, a.channels - c)), start,
           std::min(last, start + TILE));
}

struct Sums {  // two sums a channel, in double
  std::vector<double> one, two;
  explicit Sums(int64_t channels) : one(channels), two(channels) {}
  void add(int64_t c, int count, vec a, vec b) {
    for (int i = 0; i < count; ++i) {
      one[c + i] += a[i];
      two[c + i] += b[i];
    }
  }
};

// Sums over all voxels of image b of the pair that `pair(row, channel, count)` gives.
template <class Pair>
Sums reduce(const NormArguments& a, int64_t b, int workers, Pair pair) {
  std::vector<Sums> parts(workers, Sums(a.channels));
  share(a, workers, [&](int w, int64_t first, int64_t last) {
    tiles(a, first, last, [&](int64_t c, int count, int64_t start, int64_t end) {
      vec one{}, two{};
      for (int64_t v = start; v < end; ++v) pair((b * a.voxels + v) * a.channels, c, count, one, two);
      parts[w].add(c, count, one, two);
    });
  });
  for (int w = 1; w < workers; ++w)
    for (int64_t c = 0; c < a.channels; ++c) {
      parts[0].one[c] += parts[w].one[c];
      parts[0].two[c] += parts[w].two[c];
    }
  return std::move(parts[0]);
}

// Few voxels are not worth a thread.
int workers_for(const NormArguments& a) {
  const int64_t useful = a.voxels * a.channels / 16384;
  return static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(a.threads, useful)));
}

void forward_image(const NormArguments& a, int64_t b, int workers) {
  const float* origin = a.x + b * a.voxels * a.channels;  // sums are taken around the first voxel
  const Sums s = reduce(a, b, workers, [&](int64_t row, int64_t c, int n, vec& one, vec& two) {
    const vec x = lanes::load_some(a.x + row + c, n) - lanes::load_some(origin + c, n);
    one += x;
    two += x * x;
  });
  float *mean = a.mean + b * a.channels, *rstd = a.rstd + b * a.channels;
  for (int64_t c = 0; c < a.channels; ++c) {
    const double m = s.one[c] / a.voxels, var = std::max(0.0, s.two[c] / a.voxels - m * m);
    mean[c] = static_cast<float>(m + origin[c]);
    rstd[c] = static_cast<float>(1.0 / std::sqrt(var + a.eps));
  }
  share(a, workers, [&](int, int64_t first, int64_t last) {
    tiles(a, first, last, [&](int64_t c, int n, int64_t start, int64_t end) {
      const vec m = lanes::load_some(mean + c, n), r = lanes::load_some(rstd + c, n);
      for (int64_t v = start; v < end; ++v) {
        const int64_t at = (b * a.voxels + v) * a.channels + c;
        const vec h = (lanes::load_some(a.x + at, n) - m) * r;
        lanes::store_some(a.y + at, h > 0.0f ? h : h * a.slope, n);
      }
    });
  });
}

void backward_image(const NormArguments& a, int64_t b, int workers) {
  const float *mean = a.mean + b * a.channels, *rstd = a.rstd + b * a.channels;
  auto normalised = [&](int64_t at, int64_t c, int n) {
    return (lanes::load_some(a.x + at, n) - lanes::load_some(mean + c, n)) *
           lanes::load_some(rstd + c, n);
  };
  auto slope_of = [&](vec h) { return h > 0.0f ? lanes::splat(1.0f) : lanes::splat(a.slope); };
  const Sums s = reduce(a, b, workers, [&](int64_t row, int64_t c, int n, vec& one, vec& two) {
    const vec h = normalised(row + c, c, n);
    const vec g = lanes::load_some(a.dy + row + c, n) * slope_of(h);
    one += g;
    two += g * h;
  });
  std::vector<float> g_mean(a.channels), gh_mean(a.channels);
  for (int64_t c = 0; c < a.channels; ++c) {
    g_mean[c] = static_cast<float>(s.one[c] / a.voxels);
    gh_mean[c] = static_cast<float>(s.two[c] / a.voxels);
  }
  share(a, workers, [&](int, int64_t first, int64_t last) {
    tiles(a, first, last, [&](int64_t c, int n, int64_t start, int64_t end) {
      const vec r = lanes::load_some(rstd + c, n);
      const vec g0 = lanes::load_some(g_mean.data() + c, n);
      const vec g1 = lanes::load_some(gh_mean.data() + c, n);
      for (int64_t v = start; v < end; ++v) {
        const int64_t at = (b * a.voxels + v) * a.channels + c;
        const vec h = normalised(at, c, n);
        const vec g = lanes::load_some(a.dy + at, n) * slope_of(h);
        lanes::store_some(a.dx + at, r * (g - g0 - h * g1), n);
      }
    });
  });
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int segmamba_norm_forward(const NormArguments* a) {
  for (int64_t b = 0; b < a->batch; ++b) forward_image(*a, b, workers_for(*a));
  return 0;
}
EXPORT int segmamba_norm_backward(const NormArguments* a) {
  for (int64_t b = 0; b < a->batch; ++b) backward_image(*a, b, workers_for(*a));
  return 0;
}
