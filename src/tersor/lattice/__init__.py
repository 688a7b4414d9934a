"""The lattice stage of the sum, `step * z`: integers chosen by a trellis with the rate in the search, and their coder.

With no codebooks before it, it is a complete coder of its own: in a basis shared by the group, every codeword is an
integer multiple of a basis vector, and a vector is the sum of one such codeword per basis vector.
"""
