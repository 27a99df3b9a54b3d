// Seconds until something may be tried again. Knows no form.

export class Countdown {
  left = $state(0);
  #timer: ReturnType<typeof setInterval> | undefined;

  /** Counts down from `seconds`. */
  start(seconds: number): void {
    this.stop();
    const end = Date.now() + seconds * 1000;
    this.left = Math.ceil(seconds);
    this.#timer = setInterval(() => {
      this.left = Math.max(0, Math.ceil((end - Date.now()) / 1000));
      if (this.left === 0) this.stop();
    }, 250);
  }

  /** To be called when what shows it goes away. */
  stop(): void {
    clearInterval(this.#timer);
    this.left = 0;
  }
}
