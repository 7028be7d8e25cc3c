// bfloat16 in memory, float32 in registers: 2 W values at a time, by shifts and masks alone.
//
// A bfloat16 is the upper half of a float32. One vector of memory therefore holds the values of two
// vectors, the even ones in the lower and the odd ones in the upper halves of its words, and they
// are left in that order: widening and narrowing within a lane costs two operations where putting
// them in sequence would cost shuffles. `place` says which value a lane holds.
//
// Storing rounds to nearest, ties to even, as PyTorch and the processors' own instruction do; a NaN
// stays one.
#pragma once

#include <cstring>

#include "lanes.hpp"

namespace bf16 {

using lanes::vec;
using lanes::W;

typedef uint32_t word __attribute__((vector_size(W * 4)));
typedef uint32_t uword __attribute__((vector_size(W * 4), aligned(2), may_alias));

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float load_one(const uint16_t* p) {
  return bits_as<float>(static_cast<uint32_t>(*p) << 16);
}

// Which of the 2 W values the lane `lane` of the pair (even, odd) holds.
constexpr int place(int lane) { return lane < W ? 2 * lane : 2 * (lane - W) + 1; }

inline void load(const uint16_t* p, vec& even, vec& odd) {
  const word both = *reinterpret_cast<const uword*>(p);
  even = bits_as<vec>(both << 16);
  odd = bits_as<vec>(both & 0xFFFF0000u);
}

// The words whose upper halves are the rounded values.
inline word rounded(vec v) {
  const word bits = bits_as<word>(v);
  const word up = bits + 0x7FFF + ((bits >> 16) & 1);
  return v == v ? up : word{} + 0x7FC00000u;
}

inline void store(uint16_t* p, vec even, vec odd) {
  *reinterpret_cast<uword*>(p) = (rounded(even) >> 16) | (rounded(odd) & 0xFFFF0000u);
}

}  // namespace bf16
