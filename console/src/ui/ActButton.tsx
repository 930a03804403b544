// A button for something that takes a while. It keeps the focus meanwhile: a button that is `disabled` loses it, and with it the keys of its dialog.

import type { ReactNode } from "react";

interface Props {
  busy: boolean;
  isDisabled?: boolean;
  className: string;
  type?: "button" | "submit";
  form?: string;
  "aria-label"?: string;
  onPress?: () => void;
  children: ReactNode;
}

export function ActButton({ busy, isDisabled = false, type = "button", onPress, ...rest }: Props) {
  return (
    <button
      type={type}
      disabled={isDisabled && !busy}
      aria-disabled={busy || undefined}
      onClick={(event) => {
        if (busy) event.preventDefault();
        else onPress?.();
      }}
      {...rest}
    />
  );
}
