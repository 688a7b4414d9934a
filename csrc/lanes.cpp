#include "lanes.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tersor {
namespace {

#define TERSOR_SET portable
#define TERSOR_NAME "portable"
#define TERSOR_WIDTH 4
#define TERSOR_ROWS 4
#define TERSOR_TARGET
#define TERSOR_MASK(less) uint32_t((less[0] & 1) | (less[1] & 2) | (less[2] & 4) | (less[3] & 8))
#include "lanes.inc"

#if defined(__x86_64__)
// Neither target enables FMA on purpose; avx512f implies it, and -ffp-contract=off keeps the compiler from using it.
#define TERSOR_SET avx2
#define TERSOR_NAME "avx2"
#define TERSOR_WIDTH 8
#define TERSOR_ROWS 4
#define TERSOR_TARGET __attribute__((target("avx2")))
#define TERSOR_MASK(less) uint32_t(_mm256_movemask_ps((__m256)less))
#include "lanes.inc"

#define TERSOR_SET avx512
#define TERSOR_NAME "avx512"
#define TERSOR_WIDTH 16
#define TERSOR_ROWS 8
#define TERSOR_TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")))
#define TERSOR_MASK(less) uint32_t(_mm512_movepi32_mask((__m512i)less))
#include "lanes.inc"
#endif

// Slowest first; the last is the default.
std::vector<const Lanes*> available() {
    std::vector<const Lanes*> found{&portable::table};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) found.push_back(&avx2::table);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw"))
        found.push_back(&avx512::table);
#endif
    return found;
}

const Lanes* find(const std::string& name) {
    for (const Lanes* candidate : available())
        if (name == candidate->name) return candidate;
    throw std::invalid_argument("instruction set '" + name + "' is not available here");
}

const Lanes* initial() {
    const char* wanted = std::getenv("TERSOR_INSTRUCTION_SET");
    return wanted != nullptr && *wanted != 0 ? find(wanted) : available().back();
}

std::atomic<const Lanes*>& current() {
    static std::atomic<const Lanes*> table{initial()};
    return table;
}

}  // namespace

const Lanes& lanes() { return *current().load(); }

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Lanes* candidate : available()) names.emplace_back(candidate->name);
    return names;
}

void set_instruction_set(const std::string& name) { current() = find(name); }

}  // namespace tersor
