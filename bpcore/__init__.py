"""bpcore: the native core of bpnn. It knows arrays and the tape, and nothing of models.

The rooms, each importing only from those below it:

    loss   softmax   linear   activation   dropout   optim        one family a room: kernels, node, public function
       \\______|________|_________|__________|________/
    elementwise   compare   reduce   matmul   shape   index       general tensor algebra, on NumPy
       \\______________________|________________________/
                            engine                                backward: the walk over the tape
                            tensor                                Tensor, Node, the tape
       \\______________________|________________________/
       gemm          threads          memory       random         one door each: products, OpenMP, buffers, randomness
       \\______________________|________________________/
                             simd                                 kernels/*.h, compiled once an instruction set

How to add an operator (CONTRIBUTING.md walks through one):

    1. a loop over contiguous memory in kernels/<family>.h, forward beside backward (where NumPy is not fast enough);
    2. its line in kernels/table.h, kernels/isa.h and simd.pxd;
    3. a Node subclass with `backward` in <family>.pyx;
    4. the public function beside it: check, allocate, run, attach the node;
    5. one line in python/bpnn/nn/functional.py or python/bpnn/__init__.py;
    6. one line in the family's test;
    7. one line in the benchmark.
"""
