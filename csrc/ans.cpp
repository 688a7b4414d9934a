// Asymmetric numeral systems over the lattice symbols, word for word the streams of constriction's AnsCoder
// (64-bit state, 32-bit words, 24-bit probabilities). Native because a symbol's context depends on the symbols before
// it, which would cost the library one call per symbol; the twin in Python does exactly that, as the reference.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "lattice.h"
#include "parallel.h"

namespace nb = nanobind;
using namespace tersor;

namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::numpy, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

constexpr uint64_t kMask = (uint64_t{1} << kStreamBits) - 1;

class Encoder {
  public:
    void push(uint32_t cumulative, uint32_t frequency) {
        if ((state_ >> (64 - kStreamBits)) >= frequency) flush();
        state_ = ((state_ / frequency) << kStreamBits) | (cumulative + state_ % frequency);
    }
    void push_raw(uint32_t value, int bits) {
        push(value << (kStreamBits - bits), uint32_t{1} << (kStreamBits - bits));
    }
    std::vector<uint32_t> finish() {
        while (state_ != 0) flush();
        return std::move(words_);
    }

  private:
    void flush() {
        words_.push_back(static_cast<uint32_t>(state_));
        state_ >>= 32;
    }
    uint64_t state_ = 0;
    std::vector<uint32_t> words_;
};

class Decoder {
  public:
    Decoder(const uint32_t* words, int64_t count) : words_(words), left_(count) {
        while (left_ > 0 && state_ < (uint64_t{1} << 32)) refill();
    }
    uint32_t quantile() const { return static_cast<uint32_t>(state_ & kMask); }
    void pop(uint32_t cumulative, uint32_t frequency) {
        state_ = (state_ >> kStreamBits) * frequency + (quantile() - cumulative);
        if (state_ < (uint64_t{1} << 32) && left_ > 0) refill();
    }
    uint32_t pop_raw(int bits) {
        const uint32_t value = quantile() >> (kStreamBits - bits);
        pop(value << (kStreamBits - bits), uint32_t{1} << (kStreamBits - bits));
        return value;
    }
    bool exhausted() const { return left_ == 0 && state_ == 0; }

  private:
    void refill() { state_ = (state_ << 32) | words_[--left_]; }
    const uint32_t* words_;
    int64_t left_;
    uint64_t state_ = 0;
};

// Frequencies [contexts, tokens] of `precision` bits as cumulative sums and a direct look-up.
struct Tables {
    int tokens, shift;
    std::vector<uint32_t> cumulative;  // [contexts, tokens + 1]
    std::vector<uint8_t> lookup;       // [contexts, 2^precision]
    Tables(Array<const uint32_t, 2> frequencies, int precision, bool inverse)
        : tokens(static_cast<int>(frequencies.shape(1))), shift(kStreamBits - precision) {
        const int64_t rows = frequencies.shape(0), size = int64_t{1} << precision;
        cumulative.assign(rows * (tokens + 1), 0);
        if (inverse) lookup.resize(rows * size);
        for (int64_t r = 0; r < rows; ++r) {
            uint64_t sum = 0;
            for (int t = 0; t < tokens; ++t) {
                const uint64_t f = frequencies.data()[r * tokens + t];
                if (f == 0 || sum + f > static_cast<uint64_t>(size)) throw std::invalid_argument("bad frequency table");
                if (inverse) std::fill_n(lookup.begin() + r * size + sum, f, static_cast<uint8_t>(t));
                sum += f;
                cumulative[r * (tokens + 1) + t + 1] = static_cast<uint32_t>(sum);
            }
            if (sum != static_cast<uint64_t>(size)) throw std::invalid_argument("bad frequency table");
        }
    }
};

nb::object encode(Array<const int32_t, 1> symbols, Array<const int64_t, 2> planes,
                  Array<const uint32_t, 2> frequencies, int precision, int memory, int h0, int h1) {
    const Tables tables(frequencies, precision, false);
    const int tokens = tables.tokens;
    std::vector<uint32_t> words;
    {
        nb::gil_scoped_release release;
        std::vector<uint8_t> contexts(symbols.shape(0));
        scan(planes.data(), planes.shape(0), transitions(memory, h0, h1), [&](int64_t i, int context, int quantizer) {
            contexts[i] = static_cast<uint8_t>(2 * context + quantizer);
            return symbols.data()[i];
        });
        Encoder encoder;
        encoder.push_raw(kEndMark, kEndBits);
        for (int64_t i = static_cast<int64_t>(contexts.size()) - 1; i >= 0; --i) {
            const int magnitude = std::abs(symbols.data()[i]), token = token_of(magnitude), raw = raw_bits_of(token);
            if (token >= tokens) throw std::out_of_range("a symbol's token is outside the table");
            if (raw > 0) {
                const uint32_t mantissa = static_cast<uint32_t>(magnitude - smallest_of(token));
                encoder.push_raw(mantissa << 1 | (symbols.data()[i] < 0), raw);
            }
            const uint32_t* row = &tables.cumulative[static_cast<int64_t>(contexts[i]) * (tokens + 1) + token];
            if (tokens > 1) encoder.push(row[0] << tables.shift, (row[1] - row[0]) << tables.shift);
        }
        words = encoder.finish();
    }
    return nb::bytes(reinterpret_cast<const char*>(words.data()), words.size() * sizeof(uint32_t));
}

// Reads one chunk's symbols, given their contexts, and writes levels.
class ChunkDecoder {
  public:
    ChunkDecoder(const Tables& tables, int precision, const uint32_t* words, int64_t count, int32_t* out)
        : lookup_(tables.lookup.data()), cumulative_(tables.cumulative.data()), tokens_(tables.tokens),
          shift_(tables.shift), precision_(precision), decoder_(words, count), out_(out) {}
    __attribute__((always_inline)) int operator()(int64_t i, int context, int quantizer) {
        const int64_t row = 2 * context + quantizer;
        int token = 0;
        if (tokens_ > 1) {
            token = lookup_[(row << precision_) + (decoder_.quantile() >> shift_)];
            const uint32_t* bounds = &cumulative_[row * (tokens_ + 1) + token];
            decoder_.pop(bounds[0] << shift_, (bounds[1] - bounds[0]) << shift_);
        }
        // No branch for zeros, which nobody could predict: no bits are read, and the level is 0.
        const uint32_t tail = decoder_.pop_raw(raw_bits_of(token));
        const int magnitude = smallest_of(token) + static_cast<int>(tail >> 1);
        const int level = level_of(magnitude, quantizer), sign = -static_cast<int>(tail & 1);
        out_[i] = (level ^ sign) - sign;
        return magnitude;
    }
    bool ends_here() { return decoder_.pop_raw(kEndBits) == kEndMark && decoder_.exhausted(); }

  private:
    const uint8_t* lookup_;
    const uint32_t* cumulative_;
    int tokens_, shift_, precision_;
    Decoder decoder_;
    int32_t* out_;
};

// Decodes chunks in parallel, two at a time in each thread, to levels (signed multiples of the step); returns the first
// chunk whose stream does not end with its symbols, or -1.
int64_t decode(Array<const uint32_t, 1> words, Array<const int64_t, 1> word_starts, Array<const int64_t, 2> planes,
               Array<const int64_t, 1> chunk_planes, Array<const int64_t, 1> chunk_starts,
               Array<const uint32_t, 2> frequencies, int precision, int memory, int h0, int h1,
               Array<int32_t, 1> levels, int threads) {
    const Tables tables(frequencies, precision, true);
    const std::vector<int> next = transitions(memory, h0, h1);
    const int64_t chunks = static_cast<int64_t>(chunk_starts.shape(0)) - 1;
    std::vector<char> bad(chunks, 0);
    auto place = [&](int64_t c) {
        const int64_t first = chunk_planes.data()[c];
        return Place(planes.data() + 7 * first, chunk_planes.data()[c + 1] - first);
    };
    auto decoder = [&](int64_t c) {
        const int64_t first = word_starts.data()[c];
        return ChunkDecoder(tables, precision, words.data() + first, word_starts.data()[c + 1] - first,
                            levels.data() + chunk_starts.data()[c]);
    };
    {
        nb::gil_scoped_release release;
        // Pairs only where every thread gets one.
        const int64_t pairs = chunks >= 2 * std::max(threads, 1) ? chunks / 2 : 0;
        parallel_for(chunks - pairs, threads, [&](int64_t task) {
            if (task < pairs) {
                const int64_t c = 2 * task;
                ChunkDecoder a = decoder(c), b = decoder(c + 1);
                scan_both(place(c), a, place(c + 1), b, next);
                bad[c] = !a.ends_here();
                bad[c + 1] = !b.ends_here();
            } else {
                const int64_t c = task + pairs;
                ChunkDecoder own = scan(planes.data() + 7 * chunk_planes.data()[c],
                                        chunk_planes.data()[c + 1] - chunk_planes.data()[c], next, decoder(c));
                bad[c] = !own.ends_here();
            }
        });
    }
    const auto found = std::find(bad.begin(), bad.end(), 1);
    return found == bad.end() ? -1 : found - bad.begin();
}

}  // namespace

void bind_ans(nb::module_& m) {
    m.def("lattice_encode", &encode, nb::arg("symbols"), nb::arg("planes"), nb::arg("frequencies"),
          nb::arg("precision"), nb::arg("memory"), nb::arg("h0"), nb::arg("h1"));
    m.def("lattice_decode", &decode, nb::arg("words"), nb::arg("word_starts"), nb::arg("planes"),
          nb::arg("chunk_planes"), nb::arg("chunk_starts"), nb::arg("frequencies"), nb::arg("precision"),
          nb::arg("memory"), nb::arg("h0"), nb::arg("h1"), nb::arg("levels"), nb::arg("threads"));
}
