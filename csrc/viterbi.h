// Trellis-coded quantization with the rate in the search: the Viterbi algorithm over the states of the code, each
// survivor carrying its own running energies, so that every candidate is priced in its true context.
#pragma once
#include <cstdint>
#include <vector>

namespace tersor {

// What the search of every chunk shares.
struct Viterbi {
    const float* x;       // values
    float inverse_step;
    const float* weight;  // importance per value, or null
    const double* cost;   // lambda times the bits of a token: [2 * kContexts, tokens]
    int tokens;
    int states;
    std::vector<int> next;      // [states, 2] by state and parity
    std::vector<int32_t> from;  // [2, lanes]: the two states that lead to each, the lower first
    std::vector<int32_t> pick;  // [2, lanes]: the same as from + parity * lanes

    Viterbi(int memory, int h0, int h1);
    int lanes() const { return states < 8 ? 8 : states; }

    // Chooses the symbols of one chunk of `count` planes whose first value is x[begin]; `out` (as long as x) gets
    // signed magnitudes. Every instruction set gives the same.
    void run(const int64_t* planes, int64_t count, int64_t begin, int32_t* out) const;
};

}  // namespace tersor
