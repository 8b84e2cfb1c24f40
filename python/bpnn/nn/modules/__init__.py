"""The modules, one file a family; `bpnn.nn` gathers them."""
