{
  "variables": {
    "native_sources": [
      "native/addon.cc",
      "native/executor.cc",
      "native/program.cc",
      "native/table.cc",
      "native/cpu/device.cc",
      "native/cpu/isa.cc",
      "native/cpu/pool.cc",
      "native/data/binding.cc",
      "native/data/crop.cc"
    ],
    "cpu_kernel_sources": [
      "native/cpu/kernels/attention.cc",
      "native/cpu/kernels/attention_grad.cc",
      "native/cpu/kernels/elementwise.cc",
      "native/cpu/kernels/gemm.cc",
      "native/cpu/kernels/layer_norm.cc",
      "native/cpu/kernels/linear.cc",
      "native/cpu/kernels/masked_mse.cc",
      "native/cpu/kernels/optimizer.cc",
      "native/cpu/kernels/patch_embed.cc",
      "native/cpu/kernels/random_mask.cc",
      "native/cpu/kernels/tokens.cc"
    ],
    "cuda_sources": [
    ],
    "cuda_headers": [
    ]
  }
}
