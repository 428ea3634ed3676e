// Patch embedding of the visible patches and its gradient: gather, then one GEMM.
#include "gemm.cuh"
#include "patch_gather.cuh"

namespace mae { namespace cuda {
namespace {

// Memory of `bytes` at the front of the workspace, the rest behind it (256-byte aligned, as the GEMM wants it).
size_t padded(size_t bytes) { return round_up(bytes, 256); }

int64_t patch_dim(const patch_embed_args& a) { return a.channels * a.patch * a.patch; }

size_t compact_bytes(const patch_embed_grad_args& a) {
  return padded(size_t(a.batch * a.visible * a.width_out) * (a.patches.dtype == BF16 ? sizeof(bf16) : sizeof(float)));
}

}  // namespace

size_t patch_embed_workspace(const patch_embed_args& a) {
  return gemm_workspace(GemmLayout::NT, a.patches.dtype, a.batch * a.visible, a.width_out, patch_dim(a));
}

void patch_embed(const patch_embed_args& a, Context& context) {
  patch_gather(a, context);
  GemmEpilogue epilogue;
  epilogue.bias = a.bias.f32();
  epilogue.sequences.rows = a.visible;
  epilogue.sequences.pos = a.pos.f32();
  epilogue.sequences.ids = a.ids.i32();
  epilogue.sequences.ids_stride = (a.height / a.patch) * (a.width / a.patch);
  gemm(context, GemmLayout::NT, a.patches.dtype, a.batch * a.visible, a.width_out, patch_dim(a), a.patches.data, a.w.data, a.tokens.data,
       a.tokens.dtype, epilogue, context.workspace);
}

// The rows of the patches without the cls rows between them; behind them the partial sums of dcls and dbias, and in the same place later
// the GEMM's share.
size_t patch_embed_grad_workspace(const patch_embed_grad_args& a) {
  const size_t product = gemm_workspace(GemmLayout::TN, a.patches.dtype, a.width_out, a.patch_dim, a.batch * a.visible);
  const size_t sums = patch_compact_workspace(a);
  return compact_bytes(a) + (product > sums ? product : sums);
}

void patch_embed_grad(const patch_embed_grad_args& a, Context& context) {
  void* compact = context.workspace;
  Context rest = context;
  rest.workspace = static_cast<uint8_t*>(context.workspace) + compact_bytes(a);
  rest.workspace_bytes -= compact_bytes(a);
  patch_compact(a, compact, rest);
  GemmEpilogue epilogue;
  epilogue.accumulate = a.dw.accumulate();
  gemm(rest, GemmLayout::TN, a.patches.dtype, a.width_out, a.patch_dim, a.batch * a.visible, compact, a.patches.data, a.dw.data, F32,
       epilogue, rest.workspace);
}

}}  // namespace mae::cuda
