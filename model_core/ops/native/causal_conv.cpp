// Causal depthwise convolution on the CPU, forward and backward.
//
//   out_t = act(bias + sum_k w_k x_(t - width + 1 + k))
//
// Token-major like the scan: channels are contiguous, `order` says at which row a token lies.
#include <algorithm>
#include <new>

#include "lanes.hpp"
#include "pool.hpp"
#include "scan_core.hpp"

namespace {

using lanes::vec;
using lanes::W;
using scan::Lane;
constexpr int MAX_WIDTH = 16;
constexpr int64_t STRETCH = 256;  // tokens of one block before the next block's turn

struct View {  // a float tensor with contiguous channels; strides in elements
  float* data;
  int64_t batch, row;
  float* at(int64_t b, int64_t r) const { return data + b * batch + r * row; }
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

struct Conv {
  const ConvArguments& a;
  const int64_t blocks = scan::ceil_div(a.channels, W);
  const int64_t stretches = scan::ceil_div(a.length, STRETCH);

  int64_t row(int64_t t) const { return a.order ? a.order[t] : t; }

  struct Taps {
    vec w[MAX_WIDTH], bias;
  };
  Taps taps(const Lane& lane) const {
    Taps taps;
    for (int64_t k = 0; k < a.width; ++k) taps.w[k] = lane.get(a.weight + k * a.channels);
    taps.bias = a.bias ? lane.get(a.bias) : vec{};
    return taps;
  }

  vec before_activation(int64_t b, int64_t t, const Lane& lane, const Taps& taps) const {
    vec p = taps.bias;
    for (int64_t k = std::max<int64_t>(0, a.width - 1 - t); k < a.width; ++k)
      p += taps.w[k] * lane.get(a.x.at(b, row(t - a.width + 1 + k)));
    return p;
  }

  // Tokens are independent of each other, so stretches of them are shared out.
  void forward() const {
    pool::run(a.threads, a.batch * stretches, [&](int64_t task) {
      const int64_t b = task / stretches, start = task % stretches * STRETCH;
      for (int64_t k = 0; k < blocks; ++k)
        forward_stretch(b, start, std::min(a.length, start + STRETCH),
                        scan::lane_of(k, a.channels));
    });
  }

  void forward_stretch(int64_t b, int64_t start, int64_t end, const Lane& lane) const {
    const Taps w = taps(lane);
    for (int64_t t = start; t < end; ++t) {
      const vec p = before_activation(b, t, lane, w);
      lane.put(a.out.at(b, row(t)), a.silu ? lanes::silu(p) : p);
    }
  }

  // Gradients of neighbouring tokens meet, so here only blocks of channels are shared out.
  void backward() const {
    pool::run(a.threads, a.batch * blocks, [&](int64_t task) {
      const int64_t b = task / blocks;
      const Lane lane = scan::lane_of(task % blocks, a.channels);
      const Taps w = taps(lane);
      vec dw[MAX_WIDTH] = {}, dbias{};
      for (int64_t t = 0; t < a.length; ++t) {
        const vec dp = before_gradient(b, t, lane, w);
        dbias += dp;
        for (int64_t k = std::max<int64_t>(0, a.width - 1 - t); k < a.width; ++k) {
          const int64_t r = row(t - a.width + 1 + k);
          dw[k] += dp * lane.get(a.x.at(b, r));
          lane.put(a.dx.at(b, r), lane.get(a.dx.at(b, r)) + dp * w.w[k]);
        }
      }
      for (int64_t k = 0; k < a.width; ++k)
        lane.put(a.dweight + (b * a.width + k) * a.channels, dw[k]);
      lane.put(a.dbias + b * a.channels, dbias);
    });
  }

  // The gradient of the result before its activation.
  vec before_gradient(int64_t b, int64_t t, const Lane& lane, const Taps& w) const {
    const vec dout = lane.get(a.dout.at(b, row(t)));
    return a.silu ? dout * lanes::silu_slope(before_activation(b, t, lane, w)) : dout;
  }
};

template <class Call>
int guarded(const ConvArguments& a, Call call) {
  if (a.width < 1 || a.width > MAX_WIDTH) return 1;
  try {
    call(Conv{a});
  } catch (const std::bad_alloc&) {
    return 2;
  }
  return 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int segmamba_conv_forward(const ConvArguments* a) {
  return guarded(*a, [](const Conv& conv) { conv.forward(); });
}
EXPORT int segmamba_conv_backward(const ConvArguments* a) {
  return guarded(*a, [](const Conv& conv) { conv.backward(); });
}
