// Gather and add: out[n] = ((C_0[i_0] + C_1[i_1]) + C_2[i_2]) + ..., in stage order, in float32.
#include <algorithm>

#include "arrays.h"
#include "parallel.h"

namespace nb = nanobind;

namespace tersor {
namespace {

constexpr int64_t kTile = 4096;

template <int64_t Fixed>
void decode_rows(const int32_t* codes, const float* __restrict books, int64_t count, int64_t stages, int64_t size, int64_t any,
                 float* __restrict out) {
    const int64_t dims = Fixed > 0 ? Fixed : any;
    for (int64_t n = 0; n < count; ++n, codes += stages, out += dims) {
        const float* word = books + codes[0] * dims;
        for (int64_t j = 0; j < dims; ++j) out[j] = word[j];
        for (int64_t m = 1; m < stages; ++m) {
            word = books + (m * size + codes[m]) * dims;
            for (int64_t j = 0; j < dims; ++j) out[j] += word[j];
        }
    }
}

void decode(Array<const int32_t, 2> codes, Array<const float, 3> codebooks, Array<float, 2> out, int threads) {
    const int64_t count = codes.shape(0), stages = codes.shape(1), size = codebooks.shape(1), dims = codebooks.shape(2);
    require(stages > 0 && int64_t(codebooks.shape(0)) == stages, "codes and codebooks disagree on the stages");
    require(int64_t(out.shape(0)) == count && int64_t(out.shape(1)) == dims, "out has the wrong shape");
    nb::gil_scoped_release unlocked;
    parallel_for((count + kTile - 1) / kTile, threads, [&](int64_t tile) {
        const int64_t first = tile * kTile, here = std::min(kTile, count - first);
        const int32_t* codes_here = codes.data() + first * stages;
        require_indices(codes_here, here * stages, size, "code");
        auto run = dims == 4 ? decode_rows<4> : dims == 8 ? decode_rows<8> : dims == 9 ? decode_rows<9> : decode_rows<0>;
        run(codes_here, codebooks.data(), here, stages, size, dims, out.data() + first * dims);
    });
}

}  // namespace
}  // namespace tersor

void bind_decode(nb::module_& m) {
    using namespace nb::literals;
    m.def("decode", &tersor::decode, "codes"_a, "codebooks"_a, "out"_a, "threads"_a);
}
