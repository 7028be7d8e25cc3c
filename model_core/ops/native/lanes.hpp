// A handful of vector operations over W channels at a time, written with GCC/Clang vector
// extensions so that one source serves SSE, AVX2, AVX-512 and NEON; -march decides W.
//
// No -ffast-math: the rounding trick in exp2 depends on the order of its operations.
#pragma once

#include <cstdint>
#include <cstring>

namespace lanes {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vec __attribute__((vector_size(W * 4)));
typedef int32_t ivec __attribute__((vector_size(W * 4)));
// The same vector at any address: a typed dereference compiles to one unaligned instruction,
// where memcpy may be split in two and stall on store forwarding.
typedef float uvec __attribute__((vector_size(W * 4), aligned(4), may_alias));

template <int N>
struct Lanes {
  typedef float type __attribute__((vector_size(N * 4)));
};

inline vec splat(float x) { return vec{} + x; }
inline vec load(const float* p) { return *reinterpret_cast<const uvec*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<uvec*>(p) = v; }

// The first `count` lanes only: the tail of a channel count that W does not divide.
inline vec load_some(const float* p, int count) {
  if (count == W) return load(p);
  vec v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
}
inline void store_some(float* p, vec v, int count) {
  if (count == W) return store(p, v);
  for (int i = 0; i < count; ++i) p[i] = v[i];
}

inline vec max(vec a, vec b) { return a > b ? a : b; }
inline vec min(vec a, vec b) { return a < b ? a : b; }

// The sum of all lanes, halving the vector in registers.
template <int N>
inline float sum_of(typename Lanes<N>::type v) {
  typename Lanes<N / 2>::type low, high;
  std::memcpy(&low, &v, sizeof low);
  std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
  return sum_of<N / 2>(low + high);
}
template <>
inline float sum_of<2>(Lanes<2>::type v) { return v[0] + v[1]; }
inline float sum(vec v) { return sum_of<W>(v); }

// 2^x, relative error below 1e-7; saturates outside [-126, 126].
inline vec exp2(vec x) {
  x = max(min(x, splat(126.0f)), splat(-126.0f));
  const vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vec shifted = x + magic;
  const vec f = x - (shifted - magic);  // in [-1/2, 1/2]
  ivec n;
  std::memcpy(&n, &shifted, sizeof n);
  n = (n - 0x4B400000 + 127) << 23;
  vec scale;
  std::memcpy(&scale, &n, sizeof scale);
  vec p = splat(1.5403530393381608e-4f);  // Taylor coefficients ln(2)^k / k!
  p = p * f + 1.3333558146428443e-3f;
  p = p * f + 9.618129107628477e-3f;
  p = p * f + 5.550410866482158e-2f;
  p = p * f + 2.402265069591007e-1f;
  p = p * f + 6.931471805599453e-1f;
  p = p * f + 1.0f;
  return p * scale;
}

constexpr float LOG2E = 1.4426950408889634f;
inline vec exp(vec x) { return exp2(x * LOG2E); }
inline vec sigmoid(vec x) { return 1.0f / (1.0f + exp(-x)); }

// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), with log1p(e) = 2 atanh(e / (2 + e)).
inline vec softplus(vec x) {
  const vec e = exp(x > 0.0f ? -x : x);
  const vec s = e / (2.0f + e);
  const vec q = s * s;  // at most 1/9
  vec p = splat(1.0f / 15.0f);
  p = p * q + 1.0f / 13.0f;
  p = p * q + 1.0f / 11.0f;
  p = p * q + 1.0f / 9.0f;
  p = p * q + 1.0f / 7.0f;
  p = p * q + 1.0f / 5.0f;
  p = p * q + 1.0f / 3.0f;
  p = p * q + 1.0f;
  return max(x, splat(0.0f)) + 2.0f * s * p;
}

}  // namespace lanes
