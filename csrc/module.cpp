// The native kernels of tersor. Each has a twin in Python (src/tersor/kernels/), tested against it.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

void bind_nearest(nb::module_& m);
void bind_search(nb::module_& m);
void bind_statistics(nb::module_& m);
void bind_decode(nb::module_& m);
void bind_lookup(nb::module_& m);
void bind_trellis(nb::module_& m);
void bind_ans(nb::module_& m);

NB_MODULE(_native, m) {
    m.doc() = "Native kernels; use tersor.kernels, which falls back to the torch twins.";
    bind_nearest(m);
    bind_search(m);
    bind_statistics(m);
    bind_decode(m);
    bind_lookup(m);
    bind_trellis(m);
    bind_ans(m);
}
