// Calls one exported function of a kernel library with memory that was recorded elsewhere.
//
//   replay LIBRARY CALL RESULT
//
// CALL holds, all integers being int64: the function's name, the memory blocks it was given, its
// argument structure, and where in the structure a pointer to which place in which block belongs
// (names, blocks and structures are a length and that many bytes). RESULT receives the status, the
// blocks and the structure, with its pointers zeroed, as they are after the call.
#include <dlfcn.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

int64_t number(std::istream& in) {
  int64_t value = 0;
  in.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}
void put(std::ostream& out, int64_t value) {
  out.write(reinterpret_cast<const char*>(&value), sizeof value);
}
struct Block {
  int64_t size;
  char* data;
  explicit Block(std::istream& in) : size(number(in)) {
    const std::size_t whole = (size + 64) / 64 * 64;
    data = static_cast<char*>(std::aligned_alloc(64, whole));
    in.read(data, size);
  }
};

int main(int, char** names) {
  void* library = dlopen(names[1], RTLD_NOW);
  if (!library) return std::cerr << dlerror() << '\n', 1;
  std::ifstream in(names[2], std::ios::binary);
  const Block name(in);
  std::vector<Block> blocks;
  for (int64_t left = number(in); left > 0; --left) blocks.emplace_back(in);
  Block arguments(in);
  std::vector<int64_t> pointers;
  for (int64_t left = number(in); left > 0; --left) {
    const int64_t at = number(in), block = number(in), offset = number(in);
    const char* target = blocks[block].data + offset;
    std::memcpy(arguments.data + at, &target, sizeof target);
    pointers.push_back(at);
  }
  const std::string function(name.data, name.size);
  void* symbol = dlsym(library, function.c_str());
  if (!in || !symbol) return std::cerr << "cannot call " << function << '\n', 1;
  const int status = reinterpret_cast<int (*)(void*)>(symbol)(arguments.data);

  for (const int64_t at : pointers) std::memset(arguments.data + at, 0, sizeof(char*));
  std::ofstream out(names[3], std::ios::binary);
  put(out, status);
  for (const Block& block : blocks) out.write(block.data, block.size);
  out.write(arguments.data, arguments.size);
  return out ? 0 : 1;
}
