// Blending: a window's scores into the weighted sums of an image, and the sums into labels. Two
// passes over every voxel that PyTorch takes in five, with a copy for half precision on the way.
//
// A "row" is the run of voxels along the last axis. Scores come in any strides, for a network on a
// CPU usually leaves them channels-last; sums and weights are planar and contiguous along rows.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>

#include "pool.hpp"

namespace {

constexpr int64_t TILE = 256;  // voxels of a row at once: a few KB on the stack

struct View {  // element (channel, x, y, z) lies at the dot product with `stride`
  int64_t stride[4];
  int64_t at(int64_t c, int64_t x, int64_t y) const {
    return c * stride[0] + x * stride[1] + y * stride[2];
  }
};

extern "C" struct BlendArguments {
  int64_t channels, extent[3];
  const void* scores;
  View scores_view;
  float* sums;
  View sums_view;         // stride[3] is 1
  const float* weights;   // dense (extent)
  int32_t bfloat16;       // type of the scores: 1, or 0 for float32
  int32_t threads;
  int32_t finite;         // out: 1 unless a score was NaN or infinite
};

extern "C" struct DecodeArguments {
  int64_t channels, extent[3];
  const float* sums;
  View sums_view;           // stride[3] is 1
  const int64_t* order;     // the channel read at each step
  const uint8_t* values;    // the label painted at each step
  uint8_t* labels;          // dense (extent)
  int32_t nested;           // 1: regions, each painted inside the one before; 0: the highest wins
  int32_t threads;
  int32_t nan;              // out: 1 if a sum was NaN
};

inline float widen(float x) { return x; }
inline float widen(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Adds one stretch of a row. STRIDE 0 stands for any; the usual ones are known to the compiler so
// that it can shuffle instead of gather. Returns 0, or NaN where a score is NaN or infinite.
template <class T, int64_t STRIDE>
float add_stretch(const T* from, int64_t stride, const float* weights, float* sums, int64_t count) {
  const int64_t step = STRIDE ? STRIDE : stride;
  float row[TILE];
  for (int64_t z = 0; z < count; ++z) row[z] = widen(from[z * step]);
  float doubt[16] = {};
  int64_t z = 0;
  for (; z + 16 <= count; z += 16)
    for (int64_t i = 0; i < 16; ++i) {
      sums[z + i] += weights[z + i] * row[z + i];
      doubt[i] += row[z + i] * 0.0f;  // inf * 0 and NaN * 0 are NaN
    }
  for (; z < count; ++z) {
    sums[z] += weights[z] * row[z];
    doubt[0] += row[z] * 0.0f;
  }
  for (int i = 1; i < 16; ++i) doubt[0] += doubt[i];
  return doubt[0];
}

template <class T, int64_t STRIDE>
bool add_slice(const BlendArguments& a, int64_t x) {
  float doubt = 0.0f;
  for (int64_t y = 0; y < a.extent[1]; ++y)
    for (int64_t first = 0; first < a.extent[2]; first += TILE) {
      const int64_t count = std::min(TILE, a.extent[2] - first);
      const float* weights = a.weights + (x * a.extent[1] + y) * a.extent[2] + first;
      const int64_t stride = a.scores_view.stride[3];
      for (int64_t c = 0; c < a.channels; ++c) {
        const T* from = static_cast<const T*>(a.scores) + a.scores_view.at(c, x, y);
        float* to = a.sums + a.sums_view.at(c, x, y) + first;
        doubt += add_stretch<T, STRIDE>(from + first * stride, stride, weights, to, count);
      }
    }
  return doubt == 0.0f;
}

template <class T>
bool add_slice(const BlendArguments& a, int64_t x) {
  switch (a.scores_view.stride[3]) {
    case 1: return add_slice<T, 1>(a, x);
    case 3: return add_slice<T, 3>(a, x);
    case 4: return add_slice<T, 4>(a, x);
    default: return add_slice<T, 0>(a, x);
  }
}

struct Stretch {  // what is known of TILE voxels of a row so far
  float best[TILE];
  int32_t label[TILE], inside[TILE], nan[TILE];
};

void paint_highest(Stretch& s, const float* sums, int32_t value, bool first, int64_t count) {
  for (int64_t z = 0; z < count; ++z) {
    const bool wins = first || sums[z] > s.best[z];
    s.best[z] = wins ? sums[z] : s.best[z];
    s.label[z] = wins ? value : s.label[z];
    s.nan[z] |= sums[z] != sums[z];
  }
}

void paint_inside(Stretch& s, const float* sums, int32_t value, int64_t count) {
  for (int64_t z = 0; z < count; ++z) {
    s.inside[z] &= sums[z] > 0.0f;
    s.label[z] = s.inside[z] ? value : s.label[z];
    s.nan[z] |= sums[z] != sums[z];
  }
}

// Labels of one slice; false where a sum is NaN.
bool decode_slice(const DecodeArguments& a, int64_t x) {
  int32_t nan = 0;
  for (int64_t y = 0; y < a.extent[1]; ++y)
    for (int64_t first = 0; first < a.extent[2]; first += TILE) {
      const int64_t count = std::min(TILE, a.extent[2] - first);
      Stretch s;
      std::fill_n(s.label, count, 0);
      std::fill_n(s.inside, count, 1);
      std::fill_n(s.nan, count, 0);
      for (int64_t step = 0; step < a.channels; ++step) {
        const float* sums = a.sums + a.sums_view.at(a.order[step], x, y) + first;
        if (a.nested)
          paint_inside(s, sums, a.values[step], count);
        else
          paint_highest(s, sums, a.values[step], step == 0, count);
      }
      uint8_t* labels = a.labels + (x * a.extent[1] + y) * a.extent[2] + first;
      for (int64_t z = 0; z < count; ++z) {
        labels[z] = static_cast<uint8_t>(s.label[z]);
        nan |= s.nan[z];
      }
    }
  return nan == 0;
}

// Calls slice(x) for every slice of the first axis; says whether all of them said true.
template <class Slice>
int all_slices(int64_t threads, int64_t slices, int32_t& good, Slice slice) {
  std::atomic<bool> all{true};
  try {
    pool::run(threads, slices, [&](int64_t x) {
      if (!slice(x)) all.store(false, std::memory_order_relaxed);
    });
  } catch (const std::bad_alloc&) {
    return 2;
  }
  good = all.load();
  return 0;
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int segmamba_blend_add(BlendArguments* a) {
  if (a->channels < 1 || a->sums_view.stride[3] != 1) return 1;
  return all_slices(a->threads, a->extent[0], a->finite, [a](int64_t x) {
    return a->bfloat16 ? add_slice<uint16_t>(*a, x) : add_slice<float>(*a, x);
  });
}

EXPORT int segmamba_decode(DecodeArguments* a) {
  if (a->channels < 1 || a->sums_view.stride[3] != 1) return 1;
  int32_t whole = 1;
  const int status =
      all_slices(a->threads, a->extent[0], whole, [a](int64_t x) { return decode_slice(*a, x); });
  a->nan = !whole;
  return status;
}
