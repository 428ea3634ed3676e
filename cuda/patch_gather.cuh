// The parts of patch embedding that move memory: the gather of the visible patches, and the gradient's rows gathered for the GEMM.
#pragma once
#include "common.cuh"

namespace mae { namespace cuda {

// patches [batch, visible, channels·patch·patch] (channel, row, column) = the visible patches of the pictures, normalised; row 0 of each
// picture's tokens = cls + pos[0].
void patch_gather(const patch_embed_args& a, Context& context);

// compact [batch·visible, width_out], dtype of a.patches = the rows of dtokens that belong to patches; dbias (+)= their sum before they are
// rounded; dcls (+)= the sum of the other rows.
// context.workspace: patch_compact_workspace(a) bytes.
void patch_compact(const patch_embed_grad_args& a, void* compact, Context& context);
size_t patch_compact_workspace(const patch_embed_grad_args& a);

}}  // namespace mae::cuda
