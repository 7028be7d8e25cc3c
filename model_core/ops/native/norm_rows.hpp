// How the norms read memory: rows of a whole number of vectors, swept in tiles by all threads.
//
// Tensors are dense (batch, voxels, channels), float32 or bfloat16. A row is as many voxels side by
// side as fill whole spans of vectors, so no lane is ever idle and no loop asks how many channels
// are left, be it 4 of them or 20. The voxels that make no whole row are padded once.
//
// A position is a place in a row as registers hold it; `E::column` says which value lies there.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "bf16.hpp"
#include "lanes.hpp"
#include "pool.hpp"

namespace rows {

using lanes::vec;
using lanes::W;
constexpr int K = 4;  // vectors side by side: enough sums to hide the latency of an addition
constexpr int SPAN = K * W;
constexpr int64_t TILE = 64;  // rows summed in float before they join a double

struct Span {  // SPAN values in registers
  vec part[K];
};

inline Span load(const float* p) {
  Span s;
  for (int k = 0; k < K; ++k) s.part[k] = lanes::load(p + k * W);
  return s;
}

// The element types.
struct Float32 {
  using type = float;
  static int64_t column(int64_t position) { return position; }
  static float one(const float* p) { return *p; }
  static Span load(const float* p) { return rows::load(p); }
  static void store(float* p, const Span& s) {
    for (int k = 0; k < K; ++k) lanes::store(p + k * W, s.part[k]);
  }
};
struct Bfloat16 {
  using type = uint16_t;
  static int64_t column(int64_t position) {
    const int64_t lane = position % (2 * W);
    return position - lane + bf16::place(static_cast<int>(lane));
  }
  static float one(const uint16_t* p) { return bf16::load_one(p); }
  static Span load(const uint16_t* p) {
    Span s;
    for (int k = 0; k < K; k += 2) bf16::load(p + k * W, s.part[k], s.part[k + 1]);
    return s;
  }
  static void store(uint16_t* p, const Span& s) {
    for (int k = 0; k < K; k += 2) bf16::store(p + k * W, s.part[k], s.part[k + 1]);
  }
};

// How one image's values are cut: `count` rows of `width`, then `rest`, shared out as `tasks`.
template <class E>
struct Rows {
  int64_t channels, width, count, rest, block, tasks;
  Rows(int64_t voxels, int64_t of_channels) : channels(of_channels) {
    const int64_t values = voxels * channels;
    width = channels / std::gcd<int64_t>(channels, SPAN) * SPAN;
    count = values / width;
    rest = values % width;
    // Memory is read strictly as it lies, so only rows of one span are read several at a time.
    block = width == SPAN ? TILE : 1;
    // By size alone, so that the result does not depend on the number of threads.
    tasks = std::clamp<int64_t>(values / 16384, 1, 64);
  }
  int64_t channel(int64_t position) const { return E::column(position) % channels; }

  // One number for each position, given one for each channel.
  template <class Value>
  std::vector<float> spread(Value value) const {
    std::vector<float> all(width);
    for (int64_t i = 0; i < width; ++i) all[i] = static_cast<float>(value(channel(i)));
    return all;
  }

  // Calls body(task, position, index, n, is_rest) for the spans at `position` of n rows, the first of
  // them at `index`, until the image is covered, in parallel; and tile_done(task) now and then.
  template <class Body, class Done>
  void sweep(int threads, Body body, Done tile_done) const {
    pool::run(threads, tasks, [&](int64_t task) {
      const int64_t last = count * (task + 1) / tasks;
      for (int64_t row = count * task / tasks, next; row < last; row = next) {
        next = std::min(last, row + block);
        for (int64_t at = 0; at < width; at += SPAN)
          body(task, at, row * width + at, next - row, false);
        if (next % TILE < block || next == last) tile_done(task);
      }
      if (rest && task == tasks - 1) {
        for (int64_t at = 0; at < width; at += SPAN) body(task, at, at, int64_t{1}, true);
        tile_done(task);
      }
    });
  }
  template <class Body>
  void sweep(int threads, Body body) const {
    sweep(threads, body, [](int64_t) {});
  }
};

// A tensor of one image: its memory, and a padded copy of what makes no whole row. Null if absent.
template <class E>
struct Tensor {
  using T = typename E::type;
  T* data = nullptr;
  std::vector<T> padded;

  // `filler`, a voxel, continues the rest; without it zeros do.
  Tensor(const void* memory, int64_t image, int64_t voxels, const Rows<E>& rows,
         bool filler = false) {
    if (!memory) return;
    data = static_cast<T*>(const_cast<void*>(memory)) + image * voxels * rows.channels;
    padded.assign(rows.rest ? rows.width : 0, 0);
    std::copy_n(data + rows.count * rows.width, rows.rest, padded.begin());
    if (filler && rows.rest)
      for (int64_t i = rows.rest; i < rows.width; ++i) padded[i] = data[i % rows.channels];
  }
  T* base(bool rest) { return rest ? padded.data() : data; }
  void keep_rest(const Rows<E>& rows) {
    if (data) std::copy_n(padded.begin(), rows.rest, data + rows.count * rows.width);
  }
};

// Two sums for each task and position, in float for a tile and in double for the image, which in
// the end are two for each channel. They wait in the first cache, not in registers, so that memory
// is read as it lies.
template <class E>
struct Sums {
  const Rows<E>& rows;
  std::vector<float> tile;
  std::vector<double> one, two;
  explicit Sums(const Rows<E>& r)
      : rows(r), tile(2 * r.tasks * r.width), one(r.tasks * r.width), two(r.tasks * r.width) {}

  void add(int64_t task, int64_t at, const Span& a, const Span& b) {
    float *to = &tile[2 * task * rows.width + at], *and_to = to + rows.width;
    for (int k = 0; k < K; ++k) {
      lanes::store(to + k * W, lanes::load(to + k * W) + a.part[k]);
      lanes::store(and_to + k * W, lanes::load(and_to + k * W) + b.part[k]);
    }
  }
  void tile_done(int64_t task) {
    float* from = &tile[2 * task * rows.width];
    for (double* to : {&one[task * rows.width], &two[task * rows.width]})
      for (int64_t i = 0; i < rows.width; ++i, ++from) {
        to[i] += *from;
        *from = 0;
      }
  }
  void fold() {
    for (std::vector<double>* sums : {&one, &two}) {
      std::vector<double> total(rows.channels);
      for (size_t i = 0; i < sums->size(); ++i) total[rows.channel(i % rows.width)] += (*sums)[i];
      sums->swap(total);
    }
  }
};

}  // namespace rows
