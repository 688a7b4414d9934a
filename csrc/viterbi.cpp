#include "viterbi.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "lanes.h"
#include "lattice.h"

namespace tersor {
namespace {

constexpr double kUnreachable = std::numeric_limits<double>::infinity();

// The candidates of one value for one quantizer and parity, in ascending order; those missing have infinite errors.
struct Candidates {
    double error[3], magnitude[3];
    int32_t token[3];
    int count;

    void clear() {
        for (int i = 0; i < 3; ++i) {
            error[i] = kUnreachable;
            magnitude[i] = 0;
            token[i] = 0;
        }
        count = 0;
    }
};

// What stands for one value: zero, and the integers about it, by quantizer and parity of the magnitude.
struct Choices {
    Candidates of[2][2];

    void set(const Viterbi& v, int64_t index) {
        const float a = std::fabs(v.x[index] * v.inverse_step);
        const double w = v.weight ? v.weight[index] : 1.0;
        for (int quantizer = 0; quantizer < 2; ++quantizer) {
            of[quantizer][0].clear();
            of[quantizer][1].clear();
            const float half = (a + quantizer) * 0.5f;
            const int floor = static_cast<int>(half < kMaxMagnitude ? half : kMaxMagnitude);
            add(v, a, w, quantizer, 0);
            for (int m = floor > 2 ? floor - 1 : 1; m <= floor + 1; ++m) add(v, a, w, quantizer, m);
        }
    }

  private:
    void add(const Viterbi& v, float a, double w, int quantizer, int magnitude) {
        const int token = token_of(magnitude);
        if (token >= v.tokens) return;
        Candidates& c = of[quantizer][magnitude & 1];
        const double error = static_cast<double>(a) - level_of(magnitude, quantizer);
        c.error[c.count] = w * (error * error);
        c.magnitude[c.count] = magnitude;
        c.token[c.count++] = token;
    }
};

#define TERSOR_SET portable
#define TERSOR_TARGET
#define TERSOR_LANES 2
#define TERSOR_SHUFFLE 0
#include "viterbi.inc"

#if defined(__x86_64__)
#define TERSOR_SET avx2
#define TERSOR_TARGET __attribute__((target("avx2")))
#define TERSOR_LANES 4
#define TERSOR_SHUFFLE 0
#include "viterbi.inc"

#define TERSOR_SET avx512
#define TERSOR_TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,prefer-vector-width=512")))
#define TERSOR_LANES 8
#define TERSOR_SHUFFLE 1
#include "viterbi.inc"
#endif

}  // namespace

Viterbi::Viterbi(int memory, int h0, int h1) : states(1 << memory), next(transitions(memory, h0, h1)) {
    const int n = lanes();
    from.assign(2 * n, n > states ? states : 0);  // lanes beyond the states come from one of themselves: never reached
    std::vector<int> found(states, 0);
    pick = from;
    for (int s = 0; s < states; ++s)
        for (int parity = 0; parity < 2; ++parity) {
            const int to = next[s * 2 + parity], k = found[to]++;
            if (k > 1 || (k == 1 && from[to] == s)) throw std::invalid_argument("not a trellis of this kind");
            from[k * n + to] = s;
            pick[k * n + to] = s + parity * n;
        }
}

void Viterbi::run(const int64_t* planes, int64_t count, int64_t begin, int32_t* out) const {
#if defined(__x86_64__)
    const char* name = tersor::lanes().name;
    if (std::strcmp(name, "avx512") == 0) return avx512::run(*this, planes, count, begin, out);
    if (std::strcmp(name, "avx2") == 0) return avx2::run(*this, planes, count, begin, out);
#endif
    portable::run(*this, planes, count, begin, out);
}

}  // namespace tersor
