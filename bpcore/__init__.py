"""bpcore: the native core of bpnn. It knows arrays and the tape, and nothing of models.

The rooms, each importing only from those below it:

    interpolation  adaptive                                                images: other sizes,
    pooling  unpooling  averaging  fold  padding  resample                 windows over planes, blocks, borders,
        |        windows                                                   and what these share
    conv                                                                   convolutions: arguments and nodes,
    convolve  conv_weight                                                  the three sums, who computes which part,
    winograd  conv_plan  conv_kernels                                      3 x 3 kernels, boxes and planes, C kernels
        |
    batch_norm  group_norm  layer_norm  norm                               means and variances taken out,
        |           |           |         |
    embedding  rotary                                                      rows of a table, vectors turned by position
    head                                                                   a language model's last layer with its loss
    recurrent  recurrent_layer  timesteps                                  layers, what they take, the loop over time
        |
    attention  attention_units                                             scores in tiles, forward and backward
        |
    activation  gated  softmax  cross_entropy  loss  dropout  linear       what training spends its time on, one family
    optim   |     |       |           |         |       |     lora         a room: kernels, node, public function; what backward
        |                                                     stored again  makes again instead of keeping, few bits
    arithmetic  elementwise  power  rounding  combine  compare             general tensor algebra: element by element,
    reduce  statistics  order  matmul  einsum                              over axes, products,
    shape  join  repeat  index  gather  inplace                            shapes, parts, changes in place
        |                          |
        |                       engine  recompute                          backward: the walk over the tape
        |                          |
    arith  sums  lines  sparse  sweep  operand  promotion                  the same on arrays, and what operators share
        |                          |
        |              tensor  aliases                                     Tensor, Node, the tape; views changed in place
        |                          |
    gemm  blas     threads  pool.h     memory     random     dtypes        one door each: products, threads, buffers,
        |              |                                                   random numbers, types
      simd  vmath                                                          kernels/*.h, compiled once an instruction set

How to add an operator (CONTRIBUTING.md walks through one):

    1. a loop over contiguous memory in kernels/<family>.h, forward beside backward (where NumPy is not fast enough);
    2. its line in kernels/table.h and simd.pxd, or in the family's own kernels/<family>_table.h and .pyx;
    3. a Node subclass with `backward` in <family>.pyx;
    4. the public function beside it: check, allocate, run, attach the node;
    5. one line in python/bpnn/nn/functional.py or python/bpnn/__init__.py;
    6. one line in the family's test;
    7. one line in the benchmark.
"""
