# node-gyp's build, the one that needs no extra tool (CMakeLists.txt is the other; both read sources.gypi).
{
  "includes": ["sources.gypi"],
  "variables": {
    # A variable that others read lives one level deeper: gyp's rule.
    "variables": {
      "mae_werror%": "<!(node -p \"process.env.MAE_WERROR === '1' ? '-Werror' : '-Wextra'\")",
    },
    "mae_werror%": "<(mae_werror)",
    "mae_cuda%": "<!(node scripts/toolchain.js cuda)",
    "mae_x86%": "<!(node -p \"process.arch === 'x64' ? 1 : 0\")",
    "kernel_flags": ["-O3", "-std=c++17", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi", "<(mae_werror)"],
  },
  "target_defaults": {
    "default_configuration": "Release",
    "cflags!": ["-O2"],
    "defines": ["MAE_X86=<(mae_x86)"],
  },
  # One static library per instruction set: gyp has flags per target, not per file.
  "targets": [
    {
      "target_name": "cpu_portable",
      "type": "static_library",
      "sources": ["<@(cpu_kernel_sources)"],
      "defines": ["MAE_ISA=portable"],
      "cflags_cc": ["<@(kernel_flags)"],
      "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["<@(kernel_flags)"]},
    },
    {
      "target_name": "mae",
      "sources": ["<@(native_sources)"],
      "dependencies": ["cpu_portable"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti"],
      "cflags_cc": ["-O3", "-std=c++17", "-fexceptions", "-fvisibility=hidden", "-pthread", "-isystem<!(node -p \"require('path').resolve(require('node-addon-api').include_dir)\")", "-Wall", "-Wextra", "<(mae_werror)"],
      "defines": ["NAPI_VERSION=9", "NAPI_CPP_EXCEPTIONS", "NODE_ADDON_API_DISABLE_DEPRECATED"],
      "ldflags": ["-pthread", "-Wl,--no-undefined-version"],
      "libraries": ["-ldl"],
      "xcode_settings": {
        "GCC_ENABLE_CPP_EXCEPTIONS": "YES", "CLANG_CXX_LANGUAGE_STANDARD": "c++17", "MACOSX_DEPLOYMENT_TARGET": "11.0",
        "OTHER_CPLUSPLUSFLAGS": ["-I<!(node -p \"require('path').resolve(require('node-addon-api').include_dir)\")"],
      },
      "conditions": [
        ["mae_x86==1", {"dependencies": ["cpu_avx2", "cpu_avx512", "cpu_avx512bf16"]}],
        ["mae_cuda==1", {
          "variables": {"nvcc": "<!(node scripts/toolchain.js nvcc)"},
          "defines": ["MAE_WITH_CUDA", "MAE_CUDA_ARCH_LIST=\"<!(node scripts/toolchain.js arches)\""],
          "sources": ["<@(cuda_sources)"],
          "include_dirs": ["<!(node scripts/toolchain.js cudalib)/../include"],
          "libraries": ["-L<!(node scripts/toolchain.js cudalib)", "-lcudart_static", "-lrt", "-ldl", "-lpthread"],
          "rules": [{
            "rule_name": "nvcc",
            "extension": "cu",
            # gyp cannot see what a .cu includes: a change of any header below compiles all of them.
            "inputs": ["<@(cuda_headers)", "native/kernels.def", "native/kernel.h", "native/device.h"],
            "outputs": ["<(INTERMEDIATE_DIR)/<(RULE_INPUT_ROOT).cu.o"],
            "process_outputs_as_sources": 1,
            "message": "nvcc <(RULE_INPUT_PATH)",
            "action": ["<(nvcc)", "-c", "-O3", "-std=c++17", "--expt-relaxed-constexpr", "-lineinfo", "-Xcompiler", "-fPIC,-Wall,-Wextra,-fvisibility=hidden",
                       "<!@(node scripts/toolchain.js gencode)", "-DMAE_X86=<(mae_x86)", "-DMAE_WITH_CUDA", "-o", "<@(_outputs)", "<(RULE_INPUT_PATH)"],
          }],
        }],
      ],
    },
  ],
  "conditions": [
    ["mae_x86==1", {
      "targets": [
        {
          "target_name": "cpu_avx2",
          "type": "static_library",
          "sources": ["<@(cpu_kernel_sources)"],
          "defines": ["MAE_ISA=avx2"],
          "cflags_cc": ["<@(kernel_flags)", "-mavx2", "-mfma", "-mf16c"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["<@(kernel_flags)", "-mavx2", "-mfma", "-mf16c"]},
        },
        {
          "target_name": "cpu_avx512",
          "type": "static_library",
          "sources": ["<@(cpu_kernel_sources)"],
          "defines": ["MAE_ISA=avx512"],
          "cflags_cc": ["<@(kernel_flags)", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["<@(kernel_flags)", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"]},
        },
        {
          "target_name": "cpu_avx512bf16",
          "type": "static_library",
          "sources": ["<@(cpu_kernel_sources)"],
          "defines": ["MAE_ISA=avx512bf16"],
          "cflags_cc": ["<@(kernel_flags)", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mavx512bf16"],
          "xcode_settings": {"OTHER_CPLUSPLUSFLAGS": ["<@(kernel_flags)", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mavx512bf16"]},
        },
      ],
    }],
  ],
}
