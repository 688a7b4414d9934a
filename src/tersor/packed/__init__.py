"""An archive's symbols in a form that runs without entropy decoding: byte codes into small codebooks, exactly.

`tuples` and `words` pack integers, `groups` packs what an archive holds. Whoever decodes (`lazy`, `export`) gathers and
adds; the weights are the file's, bit for bit.
"""
