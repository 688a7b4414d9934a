// The trellis kernels as Python sees them: search (see viterbi.h), measure, levels.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <stdexcept>

#include "lattice.h"
#include "parallel.h"
#include "viterbi.h"

namespace nb = nanobind;
using namespace tersor;

namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

void search(Array<const float, 1> x, float inverse_step, std::optional<Array<const float, 1>> weight, Array<const int64_t, 2> planes,
            Array<const int64_t, 1> chunk_planes, Array<const int64_t, 1> chunk_starts, Array<const float, 2> cost,
            double lambda, int memory, int h0, int h1, Array<int32_t, 1> out, int threads) {
    const int64_t chunks = static_cast<int64_t>(chunk_starts.shape(0)) - 1;
    std::vector<double> priced(cost.size());
    std::transform(cost.data(), cost.data() + cost.size(), priced.begin(), [&](float bits) { return lambda * bits; });
    Viterbi v(memory, h0, h1);
    v.x = x.data();
    v.inverse_step = inverse_step;
    v.weight = weight ? weight->data() : nullptr;
    v.cost = priced.data();
    v.tokens = static_cast<int>(cost.shape(1));
    nb::gil_scoped_release release;
    parallel_for(chunks, threads, [&](int64_t c) {
        v.run(planes.data() + 7 * chunk_planes.data()[c], chunk_planes.data()[c + 1] - chunk_planes.data()[c],
              chunk_starts.data()[c], out.data());
    });
}

// Token counts per context, and the bits each plane costs under `cost`, for symbols already chosen.
void measure(Array<const int32_t, 1> symbols, Array<const int64_t, 2> planes, Array<const int64_t, 1> chunk_planes,
             Array<const int64_t, 1> chunk_starts, std::optional<Array<const float, 2>> cost, int memory, int h0, int h1,
             int tokens, Array<int64_t, 3> counts, Array<double, 1> bits, Array<int64_t, 1> levels, int threads) {
    const int64_t chunks = static_cast<int64_t>(chunk_starts.shape(0)) - 1;
    const std::vector<int> next = transitions(memory, h0, h1);
    nb::gil_scoped_release release;
    parallel_for(chunks, threads, [&](int64_t c) {
        const int64_t first = chunk_planes.data()[c], last = chunk_planes.data()[c + 1], begin = chunk_starts.data()[c];
        int64_t plane = first, left = planes.data()[7 * first] * planes.data()[7 * first + 1];
        int64_t* count = counts.data() + c * 2 * kContexts * tokens;
        scan(planes.data() + 7 * first, last - first, next, [&](int64_t index, int context, int quantizer) {
            while (left == 0) {
                ++plane;
                left = planes.data()[7 * plane] * planes.data()[7 * plane + 1];
            }
            --left;
            const int symbol = symbols.data()[begin + index], token = token_of(std::abs(symbol));
            if (token >= tokens) throw std::out_of_range("a symbol's token is outside the table");
            const int64_t cell = static_cast<int64_t>(2 * context + quantizer) * tokens + token;
            ++count[cell];
            if (cost) bits.data()[plane] += cost->data()[cell];
            levels.data()[plane] += std::min(level_of(std::abs(symbol), quantizer), kMaxLevel);
            return symbol;
        });
    });
}

// Levels (signed multiples of the step) that symbols stand for.
void levels(Array<const int32_t, 1> symbols, Array<const int64_t, 1> chunk_starts, int memory, int h0, int h1,
            Array<int32_t, 1> out, int threads) {
    const std::vector<int> next = transitions(memory, h0, h1);
    nb::gil_scoped_release release;
    parallel_for(static_cast<int64_t>(chunk_starts.shape(0)) - 1, threads, [&](int64_t c) {
        int state = 0;
        for (int64_t i = chunk_starts.data()[c]; i < chunk_starts.data()[c + 1]; ++i) {
            const int symbol = symbols.data()[i], magnitude = std::abs(symbol);
            const int level = level_of(magnitude, state & 1);
            out.data()[i] = symbol < 0 ? -level : level;
            state = next[state * 2 + (magnitude & 1)];
        }
    });
}

// What levels stand for: each moved towards the centre of the values it codes by a shift for level 1, 2 and above, in
// parts of a step of which `parts` make one; times `scale`.
void centre(Array<const int32_t, 1> levels, int parts, int first, int second, int others, float scale,
            Array<float, 1> out) {
    const int32_t shifts[4] = {0, first, second, others};
    const int32_t* in = levels.data();
    float* to = out.data();
    const int64_t count = static_cast<int64_t>(levels.shape(0));
    nb::gil_scoped_release release;
    for (int64_t i = 0; i < count; ++i) {
        const int32_t level = in[i], magnitude = level < 0 ? -level : level;
        const int32_t shift = shifts[magnitude < 3 ? magnitude : 3];
        to[i] = static_cast<float>(level * parts - (level < 0 ? -shift : shift)) * scale;
    }
}

}  // namespace

void bind_trellis(nb::module_& m) {
    m.def("trellis_search", &search, nb::arg("x"), nb::arg("inverse_step"), nb::arg("weight").none(), nb::arg("planes"), nb::arg("chunk_planes"),
          nb::arg("chunk_starts"), nb::arg("cost"), nb::arg("lam"), nb::arg("memory"), nb::arg("h0"), nb::arg("h1"),
          nb::arg("out"), nb::arg("threads"));
    m.def("trellis_measure", &measure, nb::arg("symbols"), nb::arg("planes"), nb::arg("chunk_planes"),
          nb::arg("chunk_starts"), nb::arg("cost").none(), nb::arg("memory"), nb::arg("h0"), nb::arg("h1"),
          nb::arg("tokens"), nb::arg("counts"), nb::arg("bits"), nb::arg("levels"), nb::arg("threads"));
    m.def("trellis_levels", &levels, nb::arg("symbols"), nb::arg("chunk_starts"), nb::arg("memory"), nb::arg("h0"),
          nb::arg("h1"), nb::arg("out"), nb::arg("threads"));
    m.def("trellis_centre", &centre, nb::arg("levels"), nb::arg("parts"), nb::arg("first"), nb::arg("second"),
          nb::arg("others"), nb::arg("scale"), nb::arg("out"));
}
