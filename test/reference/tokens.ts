/** Moving tokens (paper section 3, "MAE decoder"): rows copied to their places and gathered back. */
import { indexAt, type Reference, type Value, zeros } from './value';

function addRow(to: Value, toRow: number, from: Value, fromRow: number): void {
  const width = to.shape[to.shape.length - 1];
  for (let i = 0; i < width; i++) to.values[toRow * width + i] += from.values[fromRow * width + i];
}

export const unshuffle: Reference = ({ x, mask_token: maskToken, pos, restore }) => {
  const [batch, kept, width] = x.shape;
  const patches = pos.shape[0] - 1;
  const y = zeros([batch, patches + 1, width]);
  for (let b = 0; b < batch; b++) {
    for (let t = 0; t <= patches; t++) {
      const row = b * (patches + 1) + t;
      addRow(y, row, pos, t);
      const from = t === 0 ? 0 : 1 + indexAt(restore, b, patches, t - 1);
      if (from < kept) addRow(y, row, x, b * kept + from);
      else addRow(y, row, maskToken, 0);
    }
  }
  return { y };
};

export const unshuffleGrad: Reference = ({ dy, ids }, { visible }) => {
  const [batch, tokens, width] = dy.shape;
  const kept = Number(visible) + 1;
  const [dx, dmaskToken] = [zeros([batch, kept, width]), zeros([width])];
  for (let b = 0; b < batch; b++) {
    for (let j = 0; j < tokens; j++) {
      const from = b * tokens + (j === 0 ? 0 : 1 + indexAt(ids, b, tokens - 1, j - 1));
      if (j < kept) addRow(dx, b * kept + j, dy, from);
      else addRow(dmaskToken, 0, dy, from);
    }
  }
  return { dx, dx_low: dx, dmask_token: dmaskToken };
};

export const selectTokens: Reference = ({ x, ids }, { first, count }) => {
  const [batch, tokens, width] = x.shape;
  const y = zeros([batch, Number(count), width]);
  for (let b = 0; b < batch; b++) {
    for (let j = 0; j < Number(count); j++) {
      addRow(y, b * Number(count) + j, x, b * tokens + 1 + indexAt(ids, b, tokens - 1, Number(first) + j));
    }
  }
  return { y };
};

export const selectTokensGrad: Reference = ({ dy, restore }, { first, count, patches }) => {
  const [batch, , width] = dy.shape;
  const dx = zeros([batch, Number(patches) + 1, width]);
  for (let b = 0; b < batch; b++) {
    for (let p = 0; p < Number(patches); p++) {
      const j = indexAt(restore, b, Number(patches), p) - Number(first);
      if (j >= 0 && j < Number(count)) addRow(dx, b * (Number(patches) + 1) + 1 + p, dy, b * Number(count) + j);
    }
  }
  return { dx, dx_low: dx };
};
