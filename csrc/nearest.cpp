// Nearest codeword with a bias: codes[n] = argmin_k offset[k] + a[n] . b[:, k] + scale[n] * bias[table[n], k].
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "arrays.h"
#include "lanes.h"
#include "parallel.h"

namespace nb = nanobind;

namespace tersor {
namespace {

constexpr int64_t kTile = 256;

void nearest(Array<const float, 2> a, Array<const float, 2> b, Array<const float, 1> offset,
             Maybe<const float, 2> bias, Maybe<const int32_t, 1> table, Maybe<const float, 1> scale,
             Array<int32_t, 1> codes, Maybe<float, 1> score, int threads) {
    const int64_t count = a.shape(0), dims = a.shape(1), size = b.shape(1);
    require(int64_t(b.shape(0)) == dims && int64_t(offset.shape(0)) == size, "a, b and offset disagree in shape");
    require(int64_t(codes.shape(0)) == count && (!score || int64_t(score->shape(0)) == count), "outputs have wrong size");
    require(!bias || int64_t(bias->shape(1)) == size, "bias needs one column per codeword");
    require(!scale || int64_t(scale->shape(0)) == count, "scale needs one entry per vector");
    require(!table || int64_t(table->shape(0)) == count, "table needs one entry per vector");
    require(size > 0, "there are no codewords");
    const int64_t tables = bias ? bias->shape(0) : 0;
    if (bias && table) require_indices(table->data(), count, tables, "table");

    nb::gil_scoped_release unlocked;
    const Lanes& set = lanes();
    const int64_t padded = (size + set.block - 1) / set.block * set.block;
    Aligned columns(dims * padded), offsets(padded), rows(tables * padded);
    for (int64_t j = 0; j < dims; ++j) std::copy_n(b.data() + j * size, size, columns.get() + j * padded);
    std::fill_n(offsets.get(), padded, std::numeric_limits<float>::infinity());
    std::copy_n(offset.data(), size, offsets.get());
    for (int64_t t = 0; t < tables; ++t) std::copy_n(bias->data() + t * size, size, rows.get() + t * padded);
    const Stage stage{columns.get(), offsets.get(), dims, padded};

    parallel_for((count + kTile - 1) / kTile, threads, [&](int64_t tile) {
        const int64_t first = tile * kTile, here = std::min(kTile, count - first);
        const float* bias_rows[kTile];
        float scales[kTile], lows[kTile];
        for (int64_t n = 0; n < here && bias; ++n) {
            bias_rows[n] = rows.get() + (table ? table->data()[first + n] : 0) * padded;
            scales[n] = scale ? scale->data()[first + n] : 1.0f;
        }
        set.nearest(stage, a.data() + first * dims, here, scales, bias ? bias_rows : nullptr, codes.data() + first,
                    score ? score->data() + first : lows);
    });
}

}  // namespace
}  // namespace tersor

void bind_nearest(nb::module_& m) {
    using namespace nb::literals;
    m.def("nearest", &tersor::nearest, "a"_a, "b"_a, "offset"_a, "bias"_a.none(), "table"_a.none(), "scale"_a.none(),
          "codes"_a, "score"_a.none(), "threads"_a);
    m.def("instruction_set", [] { return std::string(tersor::lanes().name); });
    m.def("instruction_sets", &tersor::instruction_sets);
    m.def("set_instruction_set", &tersor::set_instruction_set, "name"_a);
}
