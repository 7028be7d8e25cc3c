// The version of everything that Python and these kernels pass to each other.
//
// Bump it together with ABI in native_library.py whenever an exported function or an argument
// structure changes: a library built before the change is then refused instead of misread.
extern "C" __attribute__((visibility("default"))) int segmamba_abi() { return 4; }
