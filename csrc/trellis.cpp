#include <nanobind/nanobind.h>
namespace nb = nanobind;
void bind_trellis(nb::module_&) {}
