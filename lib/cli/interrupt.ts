/** Ctrl-C and SIGTERM: the first one asks to stop, the second one stops at once. */
export interface Interrupt extends Disposable {
  readonly signal: AbortSignal;
  /** 130 or 143 once a signal came. */
  exitCode(): number | undefined;
}

export function interruptible(say: (line: string) => void): Interrupt {
  const controller = new AbortController();
  let code: number | undefined;
  const handle = (signal: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(code);
    code = signal === 'SIGINT' ? 130 : 143;
    say('stopping after this step and saving a checkpoint; once more stops at once');
    controller.abort();
  };
  process.on('SIGINT', handle).on('SIGTERM', handle);
  return {
    signal: controller.signal,
    exitCode: () => code,
    [Symbol.dispose]: () => void process.off('SIGINT', handle).off('SIGTERM', handle),
  };
}
