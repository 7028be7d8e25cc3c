// A handful of vector operations over W channels at a time, written with GCC/Clang vector
// extensions so that one source serves SSE, AVX2, AVX-512 and NEON; -march decides W.
//
// No -ffast-math: the rounding trick in exp2 depends on the order of its operations.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

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
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps((1u << count) - 1u, p);
#else
  vec v{};
  for (int i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}
inline void store_some(float* p, vec v, int count) {
  if (count == W) return store(p, v);
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (1u << count) - 1u, v);
#else
  for (int i = 0; i < count; ++i) p[i] = v[i];
#endif
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

// Lane i of the result is the sum of the lanes of v[i], for W vectors: neighbouring lanes are added
// pair by pair, two vectors into one, until one is left.
template <int COUNT = W>
__attribute__((always_inline)) inline vec sums(const vec* v) {
  typedef int32_t index __attribute__((vector_size(W * 4)));
  index even;
  for (int i = 0; i < W; ++i) even[i] = 2 * i;
  if constexpr (COUNT == 1) {
    return v[0];
  } else {
    vec half[COUNT / 2];
#pragma GCC unroll 8
    for (int i = 0; i < COUNT / 2; ++i) {
#if defined(__clang__)
      vec a, b;
      for (int j = 0; j < W / 2; ++j) {
        a[j] = v[2 * i][2 * j], a[j + W / 2] = v[2 * i + 1][2 * j];
        b[j] = v[2 * i][2 * j + 1], b[j + W / 2] = v[2 * i + 1][2 * j + 1];
      }
      half[i] = a + b;
#else
      half[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], even) +
                __builtin_shuffle(v[2 * i], v[2 * i + 1], even + 1);
#endif
    }
    return sums<COUNT / 2>(half);
  }
}

// 2^f for f in [-1/2, 1/2]: minimax in relative error (9.2e-8) among polynomials with p(0) = 1, so
// that a decay over a vanishing step is exactly one and long products of decays do not drift.
inline vec exp2_fraction(vec f) {
  vec p = splat(1.3264727630e-3f);
  p = p * f + 9.6715126426e-3f;
  p = p * f + 5.5507337418e-2f;
  p = p * f + 2.4022242085e-1f;
  p = p * f + 6.9314697760e-1f;
  return p * f + 1.0f;
}

// 2^x, relative error below 2e-7 where the result is a normal number; 0 and infinity beyond, NaN
// for NaN.
#if defined(__AVX512DQ__)
// 2^x = 2^floor(r) 2^(r - floor(r)) 2^f with r the nearest multiple of 1/16: a table of 16 values
// in one register leaves a polynomial of degree 3 (relative error 2e-9).
inline vec exp2(vec x) {
  alignas(64) static constexpr float ROOTS[16] = {  // 2^(j / 16)
      1.0f, 1.04427378f, 1.09050773f, 1.13878863f, 1.18920712f, 1.24185781f,
      1.29683955f, 1.35425555f, 1.41421356f, 1.47682615f, 1.54221083f, 1.61049033f,
      1.68179283f, 1.75625216f, 1.83400809f, 1.91520656f,
  };
  const vec magic = splat(786432.0f);       // 1.5 * 2^19: adding it rounds to multiples of 1/16
  const vec shifted = x + magic;            // the low four bits count sixteenths
  const vec f = _mm512_reduce_ps(x, 0x40);  // x - r; 0 for infinities
  vec p = 5.5502138e-2f * f + 2.4023429e-1f;
  p = p * f + 6.9314718e-1f;
  const vec root =
      _mm512_maskz_permutexvar_ps(0xFFFF, _mm512_castps_si512(shifted), _mm512_load_ps(ROOTS));
  p = (p * f) * root + root;
  return _mm512_maskz_scalef_ps(0xFFFF, p, shifted - magic);  // unmasked, GCC 12 warns
}
#else
inline vec exp2(vec x) {
  // At -127 the scale below becomes 0, at 128 infinity. Written so that NaN passes through.
  x = x < -127.0f ? splat(-127.0f) : x;
  x = x > 128.0f ? splat(128.0f) : x;
  const vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const vec shifted = x + magic;
  const vec p = exp2_fraction(x - (shifted - magic));
  ivec n;
  std::memcpy(&n, &shifted, sizeof n);
  n = (n - 0x4B400000 + 127) << 23;
  vec scale;
  std::memcpy(&scale, &n, sizeof scale);
  return p * scale;
}
#endif

constexpr float LOG2E = 1.4426950408889634f, LN2 = 0.6931471805599453f;
inline vec exp(vec x) { return exp2(x * LOG2E); }
inline vec sigmoid(vec x) { return 1.0f / (1.0f + exp(-x)); }
inline vec silu(vec x) { return x * sigmoid(x); }
inline vec silu_slope(vec x) {
  const vec s = sigmoid(x);
  return s * (1.0f + x * (1.0f - s));
}

// log(1 + e^x) = max(x, 0) + log1p(e^-|x|), with log1p(e) / e a minimax polynomial on [0, 1]
// (relative error 3e-8).
inline vec softplus(vec x) {
  const vec e = exp(x > 0.0f ? -x : x);
  vec p = splat(5.232674001e-3f);
  p = p * e - 2.9505143854e-2f;
  p = p * e + 7.8225771217e-2f;
  p = p * e - 1.3663227849e-1f;
  p = p * e + 1.9105996836e-1f;
  p = p * e - 2.4842979212e-1f;
  p = p * e + 3.3319096360e-1f;
  p = p * e - 4.9999493117e-1f;
  p = p * e + 9.9999996988e-1f;
  return (x > 0.0f ? x : splat(0.0f)) + e * p;
}

}  // namespace lanes
