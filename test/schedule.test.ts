import { constantSchedule, cosineSchedule, peakLearningRate } from '../lib/optim/schedule';

describe('cosine schedule', () => {
  // The paper's ViT-L: blr 1.5e-4, batch 4096, 40 epochs of warm-up, 800 epochs.
  const schedule = cosineSchedule({ blr: 1.5e-4, effectiveBatch: 4096, epochs: 800, warmupEpochs: 40 });

  test.each([
    [0, 0],
    [0.5, 3e-5],
    [20, 1.2e-3],
    [40, 2.4e-3],
    [100, 2.36328e-3],
    [420, 1.2e-3],
    [600, 3.872621e-4],
    [799, 1.02523e-8],
  ])('at epoch %f it is %f', (epoch, expected) => {
    const got = schedule(epoch);
    expect(Math.abs(got - expected)).toBeLessThanOrEqual(expected * 5e-6); // half a unit of the anchors' sixth digit
  });

  test('ends at minLr and stays there', () => {
    const floor = cosineSchedule({ lr: 1e-3, epochs: 10, warmupEpochs: 2, minLr: 1e-6 });
    expect(floor(2)).toBe(1e-3);
    expect(floor(6)).toBeCloseTo((1e-3 + 1e-6) / 2, 12);
    expect(floor(10)).toBe(1e-6);
    expect(floor(1000)).toBe(1e-6);
  });

  test('without warm-up it begins at the peak, with nothing but warm-up it only rises', () => {
    expect(cosineSchedule({ lr: 0.5, epochs: 4 })(0)).toBe(0.5);
    const rising = cosineSchedule({ lr: 0.5, epochs: 4, warmupEpochs: 4 });
    expect(rising(3)).toBe(0.375);
    expect(Number.isFinite(rising(4))).toBe(true);
  });

  test('equals the steps that were recorded with PyTorch', () => {
    // test/parity/mae-micro: 10 steps, 3 of warm-up, lr 1e-3.
    const recorded = [0, 0.0003333333333333333, 0.0006666666666666666, 0.001, 0.0009504844339512095, 0.0008117449009293668];
    const steps = cosineSchedule({ lr: 1e-3, epochs: 10, warmupEpochs: 3 });
    recorded.forEach((lr, step) => expect(steps(step)).toBeCloseTo(lr, 15));
  });
});

test('constant schedule', () => {
  const schedule = constantSchedule({ blr: 1e-3, effectiveBatch: 512 });
  expect([schedule(0), schedule(7.5)]).toEqual([2e-3, 2e-3]);
});

test('wrong options name what is wrong', () => {
  expect(() => peakLearningRate({})).toThrow(/either lr or blr, got neither/);
  expect(() => peakLearningRate({ lr: 1, blr: 1 })).toThrow(/got both/);
  expect(() => peakLearningRate({ blr: 1e-3 })).toThrow(/effectiveBatch/);
  expect(() => peakLearningRate({ lr: NaN })).toThrow(/lr must be a positive number/);
  expect(() => cosineSchedule({ lr: 1e-3, epochs: 10, warmupEpochs: 11 })).toThrow(/warmupEpochs.*10.*got 11/);
  expect(() => cosineSchedule({ lr: 1e-3, epochs: 0 })).toThrow(/epochs/);
  expect(() => cosineSchedule({ lr: 1e-3, epochs: 5, minLr: 1 })).toThrow(/minLr/);
});
