/** LayerNorm (Ba et al. 2016): x̂ = (x − μ)/√(σ² + eps), σ² the biased variance; y = x̂·weight + bias. */
import { matrixOf, type Reference, zeros } from './value';

export const layerNorm: Reference = ({ x, weight, bias }, { eps }) => {
  const [rows, width] = matrixOf(x);
  const lead = x.shape.slice(0, -1);
  const [y, mean, rstd] = [zeros(x.shape), zeros(lead), zeros(lead)];
  for (let r = 0; r < rows; r++) {
    const row = x.values.subarray(r * width, (r + 1) * width);
    const mu = row.reduce((sum, v) => sum + v, 0) / width;
    const variance = row.reduce((sum, v) => sum + (v - mu) ** 2, 0) / width;
    mean.values[r] = mu;
    rstd.values[r] = 1 / Math.sqrt(variance + Number(eps));
    row.forEach((v, i) => (y.values[r * width + i] = (v - mu) * rstd.values[r] * weight.values[i] + bias.values[i]));
  }
  return { y, mean, rstd };
};

/** With g = dy∘weight: dx = rstd·(g − mean(g) − x̂·mean(g∘x̂)) + acc. mean and rstd are operands, as the forward row saved them. */
export const layerNormGrad: Reference = ({ x, dy, weight, mean, rstd, acc }) => {
  const [rows, width] = matrixOf(x);
  const [dx, dweight, dbias] = [zeros(x.shape), zeros(weight.shape), zeros(weight.shape)];
  for (let r = 0; r < rows; r++) {
    let [sumG, sumGX] = [0, 0];
    const normalised = (i: number): number => (x.values[r * width + i] - mean.values[r]) * rstd.values[r];
    for (let i = 0; i < width; i++) {
      const d = dy.values[r * width + i];
      dbias.values[i] += d;
      dweight.values[i] += d * normalised(i);
      sumG += d * weight.values[i];
      sumGX += d * weight.values[i] * normalised(i);
    }
    for (let i = 0; i < width; i++) {
      const g = dy.values[r * width + i] * weight.values[i];
      dx.values[r * width + i] = rstd.values[r] * (g - sumG / width - (normalised(i) * sumGX) / width) + (acc?.values[r * width + i] ?? 0);
    }
  }
  return { dx, dx_low: dx, dweight, dbias };
};
