// The inner loops of the nearest-codeword search and of the Cholesky solver, one table of functions per instruction
// set. Every sum runs over ascending dimensions, lanes lie across codewords (or columns), and nothing is contracted
// or reassociated, so all tables give the same bits; only the speed differs.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tersor {

// One stage ready for the search: score[k] = offset[k] + sum_j a[j] * b[j * padded + k] (+ scale * bias[k]).
// Codewords are padded to `padded` with offset +infinity, b = 0 and bias = 0: padding is never chosen.
struct Stage {
    const float* b;
    const float* offset;
    int64_t dims;
    int64_t padded;
};

struct Lanes {
    const char* name;
    int64_t block;  // codewords are padded to a multiple of this
    // For each of `count` rows of `a` (`stage.dims` floats each): the lowest score and the lowest index that has it.
    // `bias` may be null, or holds one padded row per vector, multiplied by `scale[row]`.
    void (*nearest)(const Stage& stage, const float* a, int64_t count, const float* scale, const float* const* bias,
                    int32_t* code, float* score);
    // All scores of `count` rows that share one scaled bias row (or null): out[row * padded + k], base[row] added last.
    void (*scores)(const Stage& stage, const float* a, int64_t count, const float* base, const float* scaled_bias,
                   float* out);
    // The `width` lowest of `count` values (a multiple of block), ascending, the earlier first among equals; values of
    // infinity are left out. Returns how many there are.
    int64_t (*select)(const float* values, int64_t count, int64_t width, float* score, int64_t* index);
    // c[i * stride + j] -= a[i * stride + k] * t[k * t_stride + j] for i < rows, j < width and ascending k < depth.
    void (*rank_update)(double* c, const double* a, int64_t stride, const double* t, int64_t t_stride, int64_t rows,
                        int64_t width, int64_t depth);
};

// The table in use: the widest this processor runs, unless set_instruction_set or TERSOR_INSTRUCTION_SET says otherwise.
const Lanes& lanes();
std::vector<std::string> instruction_sets();
void set_instruction_set(const std::string& name);

}  // namespace tersor
