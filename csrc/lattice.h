// The lattice symbols' shared vocabulary: trellis, tokens and contexts (docs/format.md, "Lattice symbols").
// Everything here is integer arithmetic, so encoder and decoder agree on every machine.
#pragma once
#include <cstdint>
#include <algorithm>
#include <cstdlib>
#include <vector>

namespace tersor {

constexpr int kContexts = 48;       // energy contexts; each exists once per quantizer
constexpr int kFractionBits = 12;   // energies are fixed point with 12 fractional bits
constexpr int kMaxLevel = 1 << 14;  // magnitudes are clipped to this in the energies
constexpr float kMaxMagnitude = 8388607.0f;  // 2^23 - 1; larger ones have no token
constexpr int kMinBlock = 64;       // columns' energies are updated after at least this many symbols
constexpr int kDirect = 16;         // magnitudes below have a token of their own
constexpr int kEndBits = 16;         // a stream ends with this mark, so that a wrong number of symbols is noticed
constexpr uint32_t kEndMark = 0xA53C;
constexpr int kStreamBits = 24;     // precision of the entropy coder's probabilities

inline int msb(uint32_t v) { return 31 - __builtin_clz(v); }

// Quantizer 0 has the even multiples of the step, quantizer 1 the odd ones and zero (Marcellin & Fischer 1990).
inline int level_of(int magnitude, int quantizer) {
    return magnitude == 0 ? 0 : 2 * magnitude - quantizer;
}

inline int token_of(int magnitude) {
    if (magnitude < kDirect) return magnitude;
    const int e = msb(magnitude);
    return kDirect + 2 * (e - 4) + ((magnitude >> (e - 1)) & 1);
}

// Bits that follow a token uncoded: the sign, and for large magnitudes the mantissa.
inline int raw_bits_of(int token) {
    if (token == 0) return 0;
    return token < kDirect ? 1 : 1 + (token - kDirect) / 2 + 3;
}

inline int smallest_of(int token) {
    if (token < kDirect) return token;
    const int e = (token - kDirect) / 2 + 4;
    return (2 + ((token - kDirect) & 1)) << (e - 1);
}

inline int context_of(int64_t energy) {
    const int64_t e = energy >> 4;
    if (e < 4) return 0;
    const int top = msb(static_cast<uint32_t>(e));
    const int context = 2 * (top - 2) + static_cast<int>((e >> (top - 1)) & 1) + 1;
    return context < kContexts ? context : kContexts - 1;
}

// Rate-1/2 systematic feedback convolutional code with parity checks h0, h1 (Ungerboeck 1982); the lowest
// state bit is the quantizer, the input bit is the parity of the magnitude.
inline std::vector<int> transitions(int memory, int h0, int h1) {
    std::vector<int> next(size_t{2} << memory);
    for (int state = 0; state < (1 << memory); ++state)
        for (int parity = 0; parity < 2; ++parity) {
            int to = 0;
            for (int i = 1; i <= memory; ++i) {
                const int shifted = i < memory ? (state >> i) & 1 : 0;
                to |= (shifted ^ (((h0 >> i) & 1) & (state & 1)) ^ (((h1 >> i) & 1) & parity)) << (i - 1);
            }
            next[state * 2 + parity] = to;
        }
    return next;
}

// A plane is a rows x cols array of symbols with one mean energy and one mix of the four energies.
struct Plane {
    int64_t rows, cols, mean, fast, slow, column, constant;
};

inline Plane plane_at(const int64_t* p) { return {p[0], p[1], p[2], p[3], p[4], p[5], p[6]}; }

// Two running means along the scan.
struct Running {
    int32_t fast, slow;
    void push(int level) {
        const int32_t m = (level < kMaxLevel ? level : kMaxLevel) << kFractionBits;
        fast += (m - fast) >> 3;
        slow += (m - slow) >> 5;
    }
};

// Per-column means of the blocks of rows above.
struct Columns {
    std::vector<int64_t> mean, sum;
    int blocks = 0;
    void reset(const Plane& p) {
        mean.assign(p.cols, p.mean);
        sum.assign(p.cols, 0);
        blocks = 0;
    }
    void add(int64_t column, int level) {
        sum[column] += static_cast<int64_t>(level < kMaxLevel ? level : kMaxLevel) << kFractionBits;
    }
    void close(int64_t rows) {
        const int shift = blocks < 3 ? 1 + blocks : 4;
        for (size_t c = 0; c < mean.size(); ++c) {
            mean[c] += (sum[c] / rows - mean[c]) >> shift;
            sum[c] = 0;
        }
        ++blocks;
    }
};

inline int64_t rows_per_block(const Plane& p) { return p.cols >= kMinBlock ? 1 : (kMinBlock + p.cols - 1) / p.cols; }

inline int context_at(const Plane& p, const Running& r, int64_t column_mean) {
    return context_of(p.fast * r.fast + p.slow * r.slow + p.column * column_mean + p.constant * p.mean);
}

// Where a scan of consecutive planes is: planes, blocks and rows. What changes with every symbol is in `Walk`.
class Place {
  public:
    Place(const int64_t* planes, int64_t count) : planes_(planes), left_(count) { open(); }
    // Symbols up to the end of the row, 0 at the end of all.
    int64_t ahead() const { return ahead_; }
    const Plane& plane() const { return plane_; }
    const int64_t* mean() const { return columns_.mean.data() + column_; }
    int64_t* sum() { return columns_.sum.data() + column_; }
    bool at_start_of_plane() const { return row_ == 0 && column_ == 0; }
    // After so many symbols, none beyond the end of the row.
    void pass(int64_t count) {
        ahead_ -= count;
        column_ += count;
        if (ahead_ > 0) return;
        column_ = 0;
        if (++row_ == block_end_) {
            columns_.close(block_end_ - block_);
            block_ = block_end_;
            if (block_ == plane_.rows) {
                planes_ += 7;
                --left_;
                return open();
            }
            block_end_ = std::min(plane_.rows, block_ + rows_per_block(plane_));
        }
        ahead_ = plane_.cols;
    }

  private:
    void open() {
        ahead_ = row_ = column_ = block_ = 0;
        if (left_ == 0) return;
        plane_ = plane_at(planes_);
        columns_.reset(plane_);
        block_end_ = std::min(plane_.rows, rows_per_block(plane_));
        ahead_ = plane_.cols;
    }
    const int64_t* planes_;
    int64_t left_;
    Plane plane_{};
    Columns columns_;
    int64_t ahead_ = 0, column_ = 0, row_ = 0, block_ = 0, block_end_ = 0;
};

// What changes with every symbol. Walks are local variables of the loops below and nobody else sees them, so that they
// stay in registers: with a pointer to one about, every symbol written would make the compiler load them again.
struct Walk {
    Plane p{};
    Running running{};
    const int64_t* mean = nullptr;
    int64_t* sum = nullptr;
    int64_t index = 0;
    int state = 0;

    void enter(Place& place) {
        p = place.plane();
        mean = place.mean();
        sum = place.sum();
        if (place.at_start_of_plane()) running = {static_cast<int32_t>(p.mean), static_cast<int32_t>(p.mean)};
    }
    template <class Visit>
    __attribute__((always_inline)) void step(const int* next, Visit& visit) {
        const int quantizer = state & 1;
        const int signed_magnitude = visit(index, context_at(p, running, *mean), quantizer);
        const int magnitude = std::abs(signed_magnitude);
        const int level = level_of(magnitude, quantizer);
        running.push(level);
        *sum += static_cast<int64_t>(level < kMaxLevel ? level : kMaxLevel) << kFractionBits;
        state = next[state * 2 + (magnitude & 1)];
        ++index;
        ++mean;
        ++sum;
    }
};

// Visits the symbols of consecutive planes in scan order: visit(index, context, quantizer) returns the signed
// magnitude of that symbol, which decides the contexts after it. Returns the visitor as it is at the end.
template <class Visit>
Visit scan(const int64_t* planes, int64_t count, const std::vector<int>& next, Visit visit) {
    Place place(planes, count);
    Walk walk;
    const int* to = next.data();
    while (const int64_t ahead = place.ahead()) {
        walk.enter(place);
        for (int64_t i = 0; i < ahead; ++i) walk.step(to, visit);
        place.pass(ahead);
    }
    return visit;
}

// The same for two scans that have nothing to do with each other: while one waits for a result, the other goes on.
template <class Visit>
void scan_both(Place a, Visit& first, Place b, Visit& second, const std::vector<int>& next) {
    Walk walk, other;
    Visit visit = first, visit_other = second;
    const int* to = next.data();
    while (const int64_t ahead = std::min(a.ahead(), b.ahead())) {
        walk.enter(a);
        other.enter(b);
        for (int64_t i = 0; i < ahead; ++i) {
            walk.step(to, visit);
            other.step(to, visit_other);
        }
        a.pass(ahead);
        b.pass(ahead);
    }
    for (; a.ahead() > 0; a.pass(1)) {
        walk.enter(a);
        walk.step(to, visit);
    }
    for (; b.ahead() > 0; b.pass(1)) {
        other.enter(b);
        other.step(to, visit_other);
    }
    first = visit;
    second = visit_other;
}

}  // namespace tersor
