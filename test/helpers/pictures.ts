/** Pictures drawn for tests. */
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';

/** Writes `count` PNG pictures of coloured stripes, `size` pixels wide, into a folder that is made. */
export async function drawFolder(folder: string, count: number, size: number): Promise<void> {
  mkdirSync(folder, { recursive: true });
  for (let i = 0; i < count; i++) {
    const pixels = Buffer.from(
      Array.from({ length: size * size * 3 }, (_, j) => (i * 37 + (j % 3) * 80 + Math.floor(j / (3 * (1 + (i % 5)))) * 11) % 256),
    );
    const file = path.join(folder, `${String(i).padStart(3, '0')}.png`);
    await sharp(pixels, { raw: { width: size, height: size, channels: 3 } })
      .png()
      .toFile(file);
  }
}
